//! What comes from other hosts and from strangers, damaged: datagrams, what is asked for keys, new hosts, streams of histories.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, io};

use ::fuzz::Samples;
use decide::units::HostId;
use decide::usage::history::aged::{AgedHistory, WholeHistory};
use decide::wire::limits::WHOLE_MAX;
use decide::wire::message::Body;
use decide::wire::{self, proto as messages};
use http_body_util::Full;
use prost::Message as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tonic::codec::Codec;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use trust::authority::{Authority, LIFE};
use trust::grant::Grant;
use trust::identity::{Identity, Unix};
use trust::keys::Keys;
use trust::request::{self, Wanted};
use trust::window::Life;

use super::datagram::Ear;
use super::guard::{Caller, Guard};
use super::parts::{self, AT_ONCE_MAX, Places};
use super::seal::Kind;
use super::services::trust::trust_server::Trust;
use super::services::trust::{FetchRequest, Fetched, RenewRequest, Renewed};
use super::spread::{self, Answering};
use super::{Authentication, DATAGRAM_MAX, Heard, joining, seal};
use crate::clock::unix_seconds;
use samples::{HOST, OTHER, VM};

#[path = "../../../decide/tests/wire/samples.rs"]
#[allow(dead_code, reason = "records and definitions are of no use here")]
mod samples;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const FROM: SocketAddr = SocketAddr::new(HERE, 7946);

/// A CA, and hosts with its keys.
struct Cluster {
    folder: tempfile::TempDir,
    authority: Authority,
    now: Unix,
}

impl Cluster {
    fn new() -> Cluster {
        let now = Unix(u64::from(unix_seconds()));
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::init(&folder.path().join("ca"), "c", None, now).unwrap();
        Cluster { folder, authority, now }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca")
    }

    /// A request in the name of this host, whose key lies in a folder of its own.
    fn request(&self, host: HostId) -> (PathBuf, String) {
        let folder = self.folder.path().join(host.to_string());
        let wanted = Wanted { host, name: "web".to_owned(), addresses: vec![HERE] };
        let request = request::make(&folder, &wanted).unwrap();
        (folder, request)
    }

    /// A host of it.
    fn keys(&self, host: HostId) -> Arc<Keys> {
        let (folder, request) = self.request(host);
        let grant = self.authority.sign(&request, LIFE, self.now).unwrap().0;
        grant.install(&folder, self.now).unwrap();
        Arc::new(Keys::load(&folder).unwrap())
    }

    fn guard(&self, keys: &Arc<Keys>) -> Guard {
        let heard = keys.folder().join("heard.json");
        let life = Life { incarnation: 5, lot: 7 };
        let keys = Arc::clone(keys);
        let authentication = Authentication::Keys { keys, life, heard };
        Guard::new(authentication, HERE, self.ca()).unwrap()
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Messages of hosts, and gossip.
fn contents() -> Vec<Vec<u8>> {
    let bodies = samples::bodies().into_iter().map(samples::message);
    let gossip = vec![1, 0, 0, 0];
    bodies.map(|message| wire::encode(&message)).chain([gossip]).collect()
}

#[test]
fn damaged_datagrams_are_refused_and_what_a_host_sealed_speaks_for_that_host_alone() {
    let cluster = Cluster::new();
    let (sender, thief) = (cluster.keys(HOST), cluster.keys(OTHER));
    let (sender, thief) = (cluster.guard(&sender), cluster.guard(&thief));
    let receiver = cluster.guard(&cluster.keys(HostId(3)));
    let heard = mpsc::channel(1).0;
    let ear = Ear::new(&receiver, &heard);
    let without_keys = Ear::new(&Guard::Clear, &heard);
    let mut sealed: Vec<Vec<u8>> =
        contents().iter().map(|content| sender.seal(Kind::Request, content)).collect();
    let genuine = sealed.iter().chain(&contents()).cloned().collect::<Vec<_>>();
    let samples = Samples { length_max: DATAGRAM_MAX + 1, ..Samples::bytes(genuine) };
    samples.damaged(|bytes| {
        // As ciphertext: what opens is what was sealed, and once.
        match ear.guard.open(FROM, bytes) {
            Ok((host, ..)) => {
                assert_eq!(host, Some(HOST));
                let known = sealed.iter().position(|one| one == bytes).expect("no forgery");
                sealed.swap_remove(known);
            }
            Err(why) => assert!(!why.to_string().is_empty()),
        }
        // As plaintext, by hosts that hold the keys: a request is its sealer's own.
        for (guard, host) in [(&sender, HOST), (&thief, OTHER)] {
            match ear.opened(FROM, &guard.seal(Kind::Request, bytes)) {
                Ok(Heard::Message(message)) => {
                    assert_eq!(message.from, host);
                    assert!(matches!(message.body, Body::Request(_)), "{message:?}");
                    assert_eq!(wire::decode(&wire::encode(&message)), Ok(message));
                }
                Ok(other) => panic!("{other:?} of a request"),
                Err(why) => assert!(!why.to_string().contains('\n'), "{why}"),
            }
        }
        let gossip = ear.opened(FROM, &sender.seal(Kind::Gossip, bytes));
        let fits = bytes.len() + trust::seal::OVERHEAD <= DATAGRAM_MAX;
        assert_eq!(fits, matches!(gossip, Ok(Heard::Gossip { bytes: came, .. }) if came == bytes));
        // And in the clear, where there are no keys.
        if let Ok((kind, content)) = seal::open(FROM, bytes) {
            assert_eq!(seal::seal(kind, content), bytes);
        }
        let _ = without_keys.opened(FROM, bytes);
        let _ = without_keys.opened(FROM, &seal::seal(Kind::Request, bytes));
    });
}

/// A new host that says these bytes, and what it is answered.
async fn joins(bytes: &[u8], keys: &Arc<Keys>, ca: PathBuf) -> (io::Result<Wanted>, Vec<u8>) {
    let (mut new, served) = tokio::io::duplex(4 * 1024 * 1024);
    let spoken = async {
        // The other side may have heard enough before all was said.
        let _ = new.write_all(bytes).await;
        let _ = new.shutdown().await;
        let mut answer = Vec::new();
        new.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let serving = joining::serve(served, FROM, Arc::clone(keys), &ca);
    let (joined, answer) = tokio::join!(serving, spoken);
    (joined.map_err(io::Error::other), answer)
}

/// What is asked and answered about keys: an answer of ours to whatever was asked, which is given.
fn asked<T>(
    answering: impl Future<Output = Result<tonic::Response<T>, Status>>,
    at: &Runtime,
) -> Option<T> {
    match at.block_on(answering) {
        Ok(answer) => Some(answer.into_inner()),
        Err(status) => {
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
            None
        }
    }
}

#[test]
fn damaged_questions_for_keys_are_refused_or_answered_with_what_is_the_askers() {
    let cluster = Cluster::new();
    let keys = cluster.keys(HOST);
    let other = cluster.keys(OTHER).held().identity.clone();
    let answering = Answering::new(cluster.guard(&keys), cluster.ca());
    let held = Grant::held(keys.folder()).unwrap();
    let grant = serde_json::to_vec(&held).unwrap();
    let mark = keys.held().mark;
    let genuine = vec![
        FetchRequest { mark: mark.to_vec() }.encode_to_vec(),
        Fetched { grant: grant.clone(), signs: true }.encode_to_vec(),
        RenewRequest { request: cluster.request(OTHER).1 }.encode_to_vec(),
        Renewed { grant }.encode_to_vec(),
    ];
    let runtime = runtime();
    let caller = Caller { from: Some(FROM), peer: Some(Arc::new(other.clone())) };
    Samples::bytes(genuine).damaged(|bytes| {
        if let Ok(question) = FetchRequest::decode(bytes) {
            let same = question.mark == mark;
            let asked_of = answering.fetch(Request::new(question.clone()));
            let refused = runtime.block_on(asked_of).err().expect("nobody has no keys");
            assert_eq!(refused.code(), Code::PermissionDenied);
            let answer = asked(answering.fetch(said(question, &caller)), &runtime);
            let answer = answer.expect("always answered");
            assert_eq!(answer.grant.is_empty(), same);
            assert!(same || spread::read(&answer.grant).unwrap() == held);
        }
        if let Ok(question) = RenewRequest::decode(bytes)
            && let Some(answer) = asked(answering.renew(said(question, &caller)), &runtime)
        {
            let renewed = spread::read(&answer.grant).unwrap().certificate.expect("one");
            let renewed = identity(&renewed);
            assert_eq!((renewed.host, &renewed.addresses), (OTHER, &other.addresses));
        }
        for answer in [
            Fetched::decode(bytes).ok().map(|answer| answer.grant),
            Renewed::decode(bytes).ok().map(|answer| answer.grant),
        ] {
            if let Some(Ok(grant)) = answer.map(|grant| spread::read(&grant)) {
                let again = serde_json::to_vec(&grant).unwrap();
                assert!(spread::read(&again).unwrap() == grant);
            }
        }
    });
}

/// As it comes over a connection of that caller.
fn said<T>(message: T, caller: &Caller) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller.clone());
    request
}

#[test]
fn new_hosts_that_say_damaged_things_are_refused_without_a_word_of_their_token_or_get_what_is_theirs()
 {
    let cluster = Cluster::new();
    let keys = cluster.keys(HOST);
    let new_host = HostId(3);
    let token = cluster.authority.offer(trust::join::TOKEN_LIFE_MAX, None, cluster.now).unwrap();
    let secret = token.to_string().split('_').nth(2).unwrap().to_owned();
    let request = cluster.request(new_host).1;
    let asks = serde_json::json!({ "token": token.to_string(), "request": request }).to_string();
    let token_file = fs::read_dir(cluster.ca().join("tokens")).unwrap().next().unwrap();
    let token_file = token_file.unwrap().path();
    let kept = fs::read(&token_file).unwrap();
    let issued = cluster.ca().join("issued").join(new_host.to_string());
    let genuine = vec![asks.into_bytes(), token.to_string().into_bytes(), request.into_bytes()];
    let runtime = runtime();
    Samples::bytes(genuine).damaged(|bytes| {
        let (joined, answer) = runtime.block_on(joins(bytes, &keys, cluster.ca()));
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        match joined {
            Ok(wanted) => {
                assert_eq!((wanted.host, &wanted.addresses[..]), (new_host, &[HERE][..]));
                assert!(answer.get("grant").is_some());
                // As if it had not been here.
                fs::remove_file(&issued).unwrap();
            }
            Err(_) => {
                let why = answer.get("refused").and_then(Value::as_str).expect("why");
                assert!(!why.contains(&secret), "{why}");
            }
        }
        // A token is used up at once, also by who is then refused: the next input finds it again.
        if !token_file.exists() {
            fs::write(&token_file, &kept).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&token_file, mode).unwrap();
        }
    });
}

fn identity(pem: &str) -> Identity {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    Identity::of(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap()
}

/// As gRPC frames them: not compressed, with their length.
fn framed(parts: &[messages::HistoryPart]) -> Vec<u8> {
    let frame = |part: &messages::HistoryPart| {
        let bytes = part.encode_to_vec();
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&[0], &length[..], &bytes].concat()
    };
    parts.iter().flat_map(frame).collect()
}

#[test]
fn damaged_streams_of_histories_are_refused_or_heard_whole_and_give_their_place_back() {
    let recent = samples::aged(2);
    let recent = AgedHistory { samples: vec![recent, samples::aged(1)], ..AgedHistory::default() };
    let whole = wire::encode_history(&WholeHistory { recent, levels: Vec::new() });
    let message = samples::message(Body::History(Box::default()));
    let in_parts: Vec<Vec<u8>> = whole.chunks(50).map(<[u8]>::to_vec).collect();
    let head = parts::of(&message, VM, &whole)[0].clone();
    let part =
        |bytes| messages::HistoryPart { part: Some(messages::history_part::Part::Bytes(bytes)) };
    let many: Vec<_> = [head].into_iter().chain(in_parts.into_iter().map(part)).collect();
    let genuine = vec![
        framed(&parts::of(&message, VM, &whole)),
        framed(&many),
        framed(&parts::of(&message, VM, &[])),
        whole,
    ];
    let (runtime, places) = (runtime(), Places::default());
    let taken_in = |body: Vec<u8>| {
        let decoder =
            ProstCodec::<messages::HistoryPart, messages::HistoryPart>::default().decoder();
        let body = Full::new(tonic::codegen::Bytes::from(body));
        let stream = Streaming::new_request(decoder, body, None, Some(wire::limits::MESSAGE_MAX));
        let may_say = |from| {
            if from == HOST { Ok(()) } else { Err(Status::permission_denied("another")) }
        };
        let taken = runtime.block_on(parts::taken_in(stream, &places, may_say));
        match &taken {
            Ok(Heard::History { message, bytes, .. }) => {
                assert_eq!(message.from, HOST);
                assert!(bytes.len() <= WHOLE_MAX);
                let read = wire::decode_history(bytes).expect("it was judged");
                assert_eq!(message.body, Body::History(Box::new(read.recent)));
            }
            Ok(Heard::BadHistory { from, why, .. }) => {
                assert_eq!(*from, HOST);
                assert!(!why.is_empty());
            }
            Ok(other) => panic!("{other:?} of a history"),
            Err(status) => assert_ne!(status.code(), Code::Ok),
        }
        drop(taken);
        assert_eq!(places.free(), AT_ONCE_MAX, "a place was not given back");
    };
    Samples::bytes(genuine).damaged(|bytes| {
        taken_in(bytes.to_vec());
        // By a host of the cluster: the hash is right, and what it is of is not.
        taken_in(framed(&parts::of(&message, VM, bytes)));
    });
}
