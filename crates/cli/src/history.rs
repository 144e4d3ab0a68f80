//! `evenkeel history`: a VM's or this host's use over time, as a table, a plot, or a document.

use api::HistoryFilter;
use api::client::{Client, ClientError};

use crate::args::HistoryArgs;
use crate::screen::Screen;
use crate::show;

/// What is drawn where no metric is named.
const PLOTTED: &str = "cpu";

pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    wanted: HistoryArgs,
) -> anyhow::Result<()> {
    let HistoryArgs { about, since, metric, step, plot } = wanted;
    let metric = metric.or_else(|| plot.then(|| PLOTTED.to_owned()));
    let filter = HistoryFilter { since: Some(since), step, metric };
    let view = match client.vm_history(&about, &filter).await {
        // It may be this host's name; if it is not, what was said of VMs says more.
        Err(ClientError::Refused(none)) if none.status == 404 => {
            match client.host_history(&about, &filter).await {
                Err(ClientError::Refused(neither)) if neither.status == 404 => {
                    Err(ClientError::Refused(none))
                }
                other => other,
            }
        }
        other => other,
    }?;
    let csv = screen.csv();
    screen.show(&view, |view, look| {
        if csv {
            show::history_csv(view)
        } else if plot {
            show::history_plot(view, look)
        } else {
            show::history(view, look)
        }
    })
}
