//! Each route through the client, and each mistake as a problem with its code.

use api::client::ClientError;
use api::{
    ApplyRequest, BODY_MAX, BalancerRequest, BestHostRequest, Decision, DrainRequest, EventFilter,
    ExcludeRequest, MoveRequest, Problem, Resolve, Role, VmTag, VmTagsRequest,
};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::UnixStream;

use crate::backend::{
    MOVE, Served, VM, balancer, best_host, cluster, drain, event, exclusion, flow, one_move,
    overview, plan, report, status, unsettled,
};

/// Sends what the client would not; gives status, content type and body.
async fn raw(
    served: &Served,
    method: &str,
    path: &str,
    kind: &str,
    body: &str,
) -> (u16, String, Bytes) {
    let stream = UnixStream::connect(&served.socket).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header(header::HOST, "agent");
    let request = request
        .header(header::CONTENT_TYPE, kind)
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let kind = answer.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    (answer.status().as_u16(), kind, answer.into_body().collect().await.unwrap().to_bytes())
}

async fn problem(served: &Served, method: &str, path: &str, kind: &str, body: &str) -> Problem {
    let (status, kind, body) = raw(served, method, path, kind, body).await;
    let problem: Problem = serde_json::from_slice(&body).unwrap();
    assert_eq!(kind, "application/problem+json");
    assert_eq!(problem.status, status);
    assert!(!problem.title.is_empty() && !problem.hint.is_empty(), "{problem:?}");
    problem
}

#[tokio::test]
async fn metrics_are_text_that_prometheus_reads() {
    let served = Served::start().await;
    let (status, kind, body) = raw(&served, "GET", "/metrics", "text/plain", "").await;
    assert_eq!((status, &*kind), (200, "text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(body, "# HELP up It is.\n");
}

#[tokio::test]
async fn what_the_backend_answers_reaches_the_client() {
    let served = Served::start().await;
    served.backend.note(MOVE);
    let client = &served.client;
    assert_eq!(client.status().await.unwrap(), status());
    assert_eq!(client.hosts().await.unwrap(), vec![]);
    assert_eq!(client.traffic().await.unwrap(), vec![flow()]);
    assert_eq!(client.moves().await.unwrap(), vec![one_move()]);
    assert_eq!(client.one_move(MOVE).await.unwrap(), one_move());
    assert_eq!(client.events(&EventFilter::default()).await.unwrap(), vec![event(1, MOVE)]);
    assert_eq!(client.why(None).await.unwrap().about, "nothing");
    assert_eq!(client.why(Some(VM)).await.unwrap().about, VM);
    assert_eq!(client.why_not(VM, "host2").await.unwrap().about, format!("VM {VM} to host2"));
    assert_eq!(client.cluster().await.unwrap(), cluster());
    assert_eq!(client.plan().await.unwrap(), plan());
    assert_eq!(client.numbered_plan().await.unwrap().end, "numbered");
    assert_eq!(client.report().await.unwrap(), report());
    assert_eq!(client.overview().await.unwrap(), overview());
    let me = client.me().await.unwrap();
    assert_eq!((me.role, me.here, &*me.host), (Role::Admin, true, "host1"));
    assert_eq!(client.shown_plan().await.unwrap().end, "shown");
    let apply = ApplyRequest { vms: vec![VM.to_owned()] };
    assert_eq!(client.apply(&apply).await.unwrap().vms[0].move_id.as_deref(), Some(MOVE));
    assert_eq!(client.balancer().await.unwrap(), balancer(true));
    let off = client.switch_balancer(BalancerRequest { on: false }).await.unwrap();
    assert_eq!(off, balancer(false));
    let two_hours = ExcludeRequest { for_seconds: Some(7200) };
    assert_eq!(client.exclude(VM, two_hours).await.unwrap().until.as_deref(), Some("in 7200 s"));
    assert!(!client.include(VM).await.unwrap().excluded);
    assert_eq!(client.exclusions().await.unwrap(), [exclusion(VM.to_owned())]);
    assert_eq!(client.vm_tags(VM).await.unwrap().tags, [""; 0]);
    let pin = VmTag { key: "pin".to_owned(), values: vec!["host2".to_owned()] };
    let pin = VmTagsRequest { set: vec![pin] };
    assert_eq!(client.set_vm_tags(VM, &pin).await.unwrap().tags, ["host2"]);
    let wish = BestHostRequest { memory_mib: 4096, ..BestHostRequest::default() };
    assert_eq!(client.best_host(&wish).await.unwrap(), [best_host()]);
    assert_eq!(client.drain().await.unwrap(), drain(true));
    let end = DrainRequest { on: false, host: Some("host1".to_owned()) };
    assert_eq!(client.set_drain(&end).await.unwrap(), drain(false));
    let request = MoveRequest { vm: VM.to_owned(), to: None, force: false };
    assert_eq!(client.start_move(&request).await.unwrap().move_id, MOVE);
    assert_eq!(client.cancel(MOVE).await.unwrap(), one_move());
    assert_eq!(client.unsettled(MOVE).await.unwrap(), unsettled());
    let resolve = Resolve { decision: Decision::GiveUp, fenced: None };
    assert_eq!(client.resolve(MOVE, &resolve).await.unwrap(), one_move());
    let (status, kind, body) = raw(&served, "GET", "/healthz", "text/plain", "").await;
    assert_eq!(
        (status, kind.as_str(), &body[..]),
        (200, "text/plain; charset=utf-8", &b"ok\n"[..])
    );
}

#[tokio::test]
async fn what_the_backend_refuses_reaches_the_client() {
    let served = Served::start().await;
    let request = MoveRequest { vm: "nobody".to_owned(), to: None, force: false };
    let ClientError::Refused(problem) = served.client.start_move(&request).await.unwrap_err()
    else {
        panic!("not a refusal");
    };
    assert_eq!((problem.status, problem.code.as_str()), (404, "no-such-vm"));
    assert!(problem.title.contains("nobody"), "{problem}");
    let keep = Resolve { decision: Decision::KeepHere, fenced: None };
    let ClientError::Refused(problem) = served.client.resolve(MOVE, &keep).await.unwrap_err()
    else {
        panic!("not a refusal");
    };
    assert_eq!((problem.status, problem.title.as_str()), (409, "the VM may run on host2"));
    let ClientError::Refused(problem) = served.client.vms().await.unwrap_err() else {
        panic!("not a refusal")
    };
    assert_eq!((problem.status, problem.code.as_str()), (503, "starting"));
}

#[tokio::test]
async fn names_arrive_as_they_were_written() {
    let served = Served::start().await;
    let odd = "a/b c?&%=ü/..";
    served.client.why_not(odd, odd).await.unwrap();
    served.client.one_move(odd).await.unwrap();
    served.client.cancel(odd).await.unwrap();
    let request = MoveRequest { vm: odd.to_owned(), to: None, force: false };
    served.client.start_move(&request).await.unwrap_err();
    assert_eq!(served.backend.names(), [odd; 5]);
    let passed_on = "/v1/at/host%202/v1/vms/a%2Fb/history?since=60&metric=cpu";
    let (status, kind, body) = raw(&served, "GET", passed_on, "text/plain", "").await;
    assert_eq!((status, &*kind, &body[..]), (200, "application/json", &b"[\"there\"]"[..]));
    let names = served.backend.names();
    assert_eq!(names[5..], ["host 2", "/v1/vms/a%2Fb/history?since=60&metric=cpu"]);
    let filter = EventFilter { move_id: Some(odd.to_owned()), ..EventFilter::default() };
    served.client.events(&filter).await.unwrap();
    assert_eq!(served.backend.queries()[0].move_id.as_deref(), Some(odd));
}

#[tokio::test]
async fn who_has_an_answer_already_is_told_that_it_has_not_changed() {
    let served = Served::start().await;
    let asked = async |path: &str, had: Option<&str>| {
        let stream = UnixStream::connect(&served.socket).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().uri(path).header(header::HOST, "agent");
        request = had.into_iter().fold(request, |to, tag| to.header(header::IF_NONE_MATCH, tag));
        let answer = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await;
        let (head, body) = answer.unwrap().into_parts();
        let tag = head.headers.get(header::ETAG).map(|tag| tag.to_str().unwrap().to_owned());
        (head.status.as_u16(), tag, body.collect().await.unwrap().to_bytes().len())
    };
    for path in ["/v1/openapi.json", "/v1/exclusions", "/v1/balancer", "/v1/tokens"] {
        let (status, tag, size) = asked(path, None).await;
        let tag = tag.expect(path);
        assert!(status == 200 && size > 1 && tag.starts_with("W/\""), "{path}: {tag}");
        let listed = format!("W/\"other\", {tag}");
        for had in [&*tag, tag.trim_start_matches("W/"), &listed, "*"] {
            assert_eq!(asked(path, Some(had)).await, (304, Some(tag.clone()), 0), "{path}");
        }
        assert_eq!(asked(path, Some("W/\"other\"")).await, (200, Some(tag), size), "{path}");
    }
    // What changes by itself has none, nor has a refusal.
    for path in ["/v1/status", "/v1/hosts", "/v1/overview", "/v1/inventory"] {
        assert_eq!(asked(path, Some("*")).await.1, None, "{path}");
    }
    served.client.switch_balancer(BalancerRequest { on: false }).await.unwrap();
}

#[tokio::test]
async fn a_client_pages_through_by_itself() {
    let served = Served::start().await;
    for (count, asks) in [(0, 1), (999, 1), (1000, 2), (2500, 3)] {
        served.backend.list(count);
        let before = served.backend.asked();
        let all = served.client.inventory().await.unwrap();
        assert_eq!(served.backend.asked() - before, asks, "{count}");
        assert!(all.is_sorted_by(|a, b| a.key() < b.key()) && all.len() == count, "{count}");
    }
}

#[tokio::test]
async fn the_limits_of_a_query_are_kept() {
    let served = Served::start().await;
    (0..5).for_each(|_| served.backend.note(MOVE));
    for (limit, given) in [(None, 100), (Some(1), 1), (Some(7), 7), (Some(1000), 1000)] {
        let filter = EventFilter { limit, after: Some(5), ..EventFilter::default() };
        served.client.events(&filter).await.unwrap();
        let query = served.backend.queries().pop().unwrap();
        assert_eq!((query.limit, query.after, query.wait), (given, Some(5), Duration::ZERO));
    }
}

#[tokio::test]
async fn each_mistake_has_its_code() {
    let served = Served::start().await;
    let json = "application/json";
    let too_long = format!("{{\"vm\": \"{}\"}}", "x".repeat(BODY_MAX));
    let longest = format!("{{\"vm\": \"{}\"}}", "x".repeat(BODY_MAX - 10));
    assert_eq!(longest.len(), BODY_MAX);
    for (method, path, kind, body, status, code) in [
        ("GET", "/v2/hosts", json, "", 404, "no-such-route"),
        ("GET", "/v1/why/a/b", json, "", 404, "no-such-route"),
        ("DELETE", "/v1/moves", json, "", 405, "no-such-method"),
        ("GET", "/v1/moves/1/cancel", json, "", 405, "no-such-method"),
        ("POST", "/v1/moves/1/resolve", json, "{\"decision\": \"keep\"}", 422, "wrong-fields"),
        ("POST", "/v1/moves/1/resolve", json, "{\"fenced\": \"host2\"}", 422, "wrong-fields"),
        ("POST", "/v1/plan", json, "", 405, "no-such-method"),
        ("POST", "/v1/plan/apply", json, "{\"vm\": [\"web\"]}", 422, "wrong-fields"),
        ("POST", "/v1/balancer", json, "{\"off\": true}", 422, "wrong-fields"),
        ("POST", "/v1/moves", json, "{\"vm\": ", 400, "bad-json"),
        ("POST", "/v1/moves", json, "{\"vm\": 7}", 422, "wrong-fields"),
        ("POST", "/v1/moves", json, "{\"to\": \"host2\"}", 422, "wrong-fields"),
        ("POST", "/v1/moves", json, "{\"vm\": \"web\", \"too\": \"host2\"}", 422, "wrong-fields"),
        ("POST", "/v1/moves", "text/plain", "{\"vm\": \"web\"}", 415, "not-json"),
        ("POST", "/v1/moves", json, &too_long, 413, "body-too-large"),
        ("POST", "/v1/moves", json, &longest, 404, "no-such-vm"),
        ("GET", "/v1/events?after=x", json, "", 400, "bad-query"),
        ("GET", "/v1/events?limit=-1", json, "", 400, "bad-query"),
        ("GET", "/v1/events?since=1", json, "", 400, "bad-query"),
        ("GET", "/v1/events?limit=0", json, "", 400, "bad-limit"),
        ("GET", "/v1/events?limit=1001", json, "", 400, "bad-limit"),
        ("GET", "/v1/events?after=1", json, "", 409, "events-reset"),
        ("GET", "/v1/audit?limit=1001", json, "", 400, "bad-limit"),
        ("GET", "/v1/moves?limit=0", json, "", 400, "bad-limit"),
        ("GET", "/v1/moves?before=1", json, "", 404, "no-such-move"),
        ("GET", "/v1/moves?after=1", json, "", 400, "bad-query"),
        ("GET", "/v1/inventory?limit=4294967295", json, "", 400, "bad-limit"),
        ("GET", "/v1/inventory?after=web", json, "", 400, "bad-cursor"),
        ("GET", "/v1/plan?numbers=true", json, "", 400, "bad-query"),
        ("POST", "/v1/at/host2/v1/moves", json, "{\"vm\": \"web\"}", 405, "no-such-method"),
        ("GET", "/v1/why/%FF", json, "", 400, "bad-path"),
    ] {
        let problem = problem(&served, method, path, kind, body).await;
        assert_eq!(
            (problem.status, problem.code.as_str()),
            (status, code),
            "{method} {path}: {problem}"
        );
    }
    assert_eq!(served.client.status().await.unwrap(), status(), "the agent lives on");
}
