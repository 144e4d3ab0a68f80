//! Lists that grow: so much at once, and where to go on.
//!
//! **Invariant:** a limit that cannot be kept is refused, never changed without a word.

use api::{InventoryFilter, LIST_MAX, MoveView, MovesFilter, Problem, VmPlace};
use axum::Json;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

/// What may stand in a query as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How many are asked for.
///
/// # Errors
/// None, or more than there may be.
pub(super) fn limit(asked: Option<u32>, default: u32, max: u32) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(default);
    if (1..=max).contains(&limit) {
        return Ok(limit as usize);
    }
    let title = format!("limit={limit} is not between 1 and {max}");
    let hint =
        "Ask for less at once, and go on after the last that came (docs/api.md, lists that grow)";
    Err(Problem::new(400, "bad-limit", title, hint))
}

/// A page of moves, newest first as they are given.
///
/// # Errors
/// The limit, or a move that is not told any more.
pub(super) fn moves(all: Vec<MoveView>, filter: &MovesFilter) -> Result<Response, Problem> {
    let limit = limit(filter.limit, LIST_MAX, LIST_MAX)?;
    let first = match &filter.before {
        None => 0,
        Some(id) => 1 + all.iter().position(|one| one.id == *id).ok_or_else(|| gone(id))?,
    };
    let rest: Vec<MoveView> = all.into_iter().skip(first).collect();
    Ok(page(rest, limit, |last| format!("/v1/moves?limit={limit}&before={}", plain(&last.id))))
}

/// A page of VMs.
///
/// # Errors
/// The limit, or what the list is to go on after is nothing of it.
pub(super) fn inventory(
    mut all: Vec<VmPlace>,
    filter: &InventoryFilter,
) -> Result<Response, Problem> {
    let limit = limit(filter.limit, LIST_MAX, LIST_MAX)?;
    all.sort_by(|a, b| a.key().cmp(&b.key()));
    if let Some(after) = &filter.after {
        let mut parts = after.splitn(3, '/');
        let (Some(id), Some(host), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            let title = format!("{after:?} is no place in this list");
            let hint = "Go on after the last that came by its ID/HOST/NAME, or follow the link that came with it";
            return Err(Problem::new(400, "bad-cursor", title, hint));
        };
        all.retain(|one| one.key() > (name, host, id));
    }
    Ok(page(all, limit, |last| {
        format!("/v1/inventory?limit={limit}&after={}", plain(&last.cursor()))
    }))
}

fn gone(id: &str) -> Problem {
    let hint = "Of moves that are over the newest are told: begin anew, without `before`";
    Problem::new(404, "no-such-move", format!("no move {id:?} is told here any more"), hint)
}

/// The first `limit`, and, if there are more, where they are (RFC 8288).
fn page<T: Serialize>(mut rest: Vec<T>, limit: usize, next: impl Fn(&T) -> String) -> Response {
    let more = rest.len() > limit;
    rest.truncate(limit);
    let mut headers = HeaderMap::new();
    if let Some(last) = rest.last().filter(|_| more) {
        let link = HeaderValue::from_str(&format!("<{}>; rel=\"next\"", next(last)));
        headers.extend(link.ok().map(|link| (header::LINK, link)));
    }
    (headers, Json(rest)).into_response()
}

fn plain(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::json;

    use super::*;

    fn places(all: &[(&str, &str, &str)]) -> Vec<VmPlace> {
        let place = |(name, host, id): &(&str, &str, &str)| {
            serde_json::from_value(json!({
                "name": name, "id": id, "host": host, "host_state": "alive", "age_seconds": 0.0,
                "state": "running", "epoch": 1, "memory_mib": 1024,
            }))
        };
        all.iter().map(|one| place(one).unwrap()).collect()
    }

    /// What came, by the ids, and the link to more.
    async fn told(answer: Response) -> (Vec<String>, Option<String>) {
        let link = answer.headers().get(header::LINK).map(|link| link.to_str().unwrap().to_owned());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let all: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
        (all.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect(), link)
    }

    #[tokio::test]
    async fn page_after_page_gives_each_vm_once_also_where_some_go_meanwhile() {
        let all = [
            ("a", "host1", "1"),
            // One VM that two hosts list, two that have one name, and a name with all that is odd.
            ("b", "host1", "2"),
            ("b", "host2", "2"),
            ("b", "host2", "3"),
            ("c/d e&f", "host1", "4"),
            ("z", "host1", "5"),
        ];
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let filter = InventoryFilter { after: after.clone(), limit: Some(2) };
            let (page, link) = told(inventory(places(&all), &filter).unwrap()).await;
            seen.extend(page);
            let Some(link) = link else { break };
            let cursor = link.strip_prefix("</v1/inventory?limit=2&after=").unwrap();
            let cursor = cursor.strip_suffix(">; rel=\"next\"").unwrap();
            let cursor = percent_encoding::percent_decode_str(cursor).decode_utf8().unwrap();
            after = Some(cursor.into_owned());
        }
        assert_eq!(seen, ["1", "2", "2", "3", "4", "5"]);
        let filter = InventoryFilter { after: Some("9/host1/b".to_owned()), limit: None };
        let (rest, link) = told(inventory(places(&all), &filter).unwrap()).await;
        assert_eq!((rest, link), (["2", "3", "4", "5"].map(str::to_owned).to_vec(), None));
    }

    #[tokio::test]
    async fn moves_go_on_before_the_last_that_came() {
        let one = |id: &str| -> MoveView {
            serde_json::from_value(json!({
                "id": id, "vm": "web", "vm_id": "1", "from": "host1", "to": null, "phase": "done",
                "reason": "", "began": "", "ended": true, "outcome": null, "acceptances": 0, "refusals": 0,
                "copied_bytes": 0, "total_bytes": 0, "rounds": 0, "total_ms": null, "downtime_ms": null,
                "promised_percent": null, "measured_percent": null, "paid": null,
            }))
            .unwrap()
        };
        let all = || ["m.3", "m.2", "m.1"].map(one).to_vec();
        let page = |before: Option<&str>| {
            moves(all(), &MovesFilter { before: before.map(str::to_owned), limit: Some(2) })
        };
        let (first, link) = told(page(None).unwrap()).await;
        assert_eq!(first, ["m.3", "m.2"]);
        assert_eq!(link.unwrap(), "</v1/moves?limit=2&before=m.2>; rel=\"next\"");
        assert_eq!(told(page(Some("m.2")).unwrap()).await, (vec!["m.1".to_owned()], None));
        assert_eq!(told(page(Some("m.1")).unwrap()).await, (vec![], None));
        assert_eq!(page(Some("m.0")).unwrap_err().code, "no-such-move");
    }
}
