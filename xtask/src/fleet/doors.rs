//! Where the hosts' APIs are served: a socket for each, and TLS with keys of a CA of its own for the first.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::clock::unix_seconds;
use agent::fleet::Desktop;
use agent::http::{ApiSocket, Doors, TlsListener};
use anyhow::Context;
use api::client::Client;
use api::{Role, TokenRequest};
use decide::units::HostId;
use sim::world::host_id;
use tokio::sync::oneshot;
use trust::authority::{Authority, LIFE};
use trust::identity::Unix;
use trust::keys::{CA_CERTIFICATE, Keys};
use trust::request::{Wanted, make};

use super::Ways;
use super::stage::CLUSTER;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(super) struct Opened {
    pub(super) ways: Ways,
    /// Dropped to end serving.
    pub(super) stops: Vec<oneshot::Sender<()>>,
}

pub(super) async fn open(
    hosts: u16,
    mut tops: BTreeMap<HostId, Desktop>,
    folder: &Path,
) -> anyhow::Result<Opened> {
    let keys_folder = folder.join("keys");
    let keys = Arc::new(keys(folder, &keys_folder)?);
    let (mut sockets, mut stops, mut url) = (Vec::new(), Vec::new(), String::new());
    for at in 1..=hosts {
        let top =
            tops.remove(&host_id(at)).with_context(|| format!("host{at} is not answered for"))?;
        let path = folder.join(format!("host{at}")).join("api.sock");
        let socket = ApiSocket::bind(&path, None).await?;
        let tls = match at {
            1 => Some(TlsListener::bind(SocketAddr::new(HERE, 0), &keys).await?),
            _ => None,
        };
        if let Some(tls) = &tls {
            url = format!("https://{}", tls.address()?);
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            // An error means that the sender is gone, which is the end too.
            let _ = stopped.await;
        };
        tokio::spawn(top.serve(Doors { socket, tls }, stopped));
        stops.push(stop);
        sockets.push(path);
    }
    let [operator, viewer] =
        [token(&sockets, Role::Operator).await?, token(&sockets, Role::Viewer).await?];
    let ways =
        Ways { url, ca: keys_folder.join(CA_CERTIFICATE), sockets, operator, viewer, truth: None };
    Ok(Opened { ways, stops })
}

async fn token(sockets: &[PathBuf], role: Role) -> anyhow::Result<String> {
    let client = Client::new(sockets.first().context("there are hosts")?);
    let wish = TokenRequest { name: format!("a {role}"), role, days: 1 };
    Ok(client.make_token(&wish).await.context("making a token")?.token)
}

/// Keys of the first host for TLS, by a CA that nobody else knows.
fn keys(folder: &Path, to: &Path) -> anyhow::Result<Keys> {
    // Valid for a while already, whatever clock a browser has.
    let then = Unix(u64::from(unix_seconds()).saturating_sub(3600));
    let authority = Authority::init(&folder.join("ca"), CLUSTER, None, then)?;
    let wanted = Wanted { host: host_id(1), name: "host1".to_owned(), addresses: vec![HERE] };
    let request = make(to, &wanted)?;
    let (grant, _) = authority.sign(&request, LIFE, then)?;
    grant.install(to, then)?;
    Keys::load(to)
}
