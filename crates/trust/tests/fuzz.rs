//! Datagrams, tokens, requests, grants and lists of revocations, damaged.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what is wanted")]

use std::net::IpAddr;
use std::time::Duration;

use decide::units::HostId;
use fuzz::Samples;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use trust::authority::{Authority, LIFE};
use trust::grant::{self, Grant};
use trust::identity::{Identity, Unix};
use trust::join::Token;
use trust::keys::Keys;
use trust::request::{self, Wanted, make};
use trust::revoked::Revoked;
use trust::ring::SPREADS;
use trust::seal::{Marks, Opened, Opener, Refused, Sealer};
use trust::window::{Life, Stale};

const NOW: Unix = Unix(1_790_000_000);
/// By then a key that was made now seals.
const SPREAD: Unix = Unix(NOW.0 + SPREADS + 2);
const ADDRESS: &str = "127.0.0.1";

/// A cluster's CA and the keys of host 1.
struct Bed {
    folder: tempfile::TempDir,
    authority: Authority,
    keys: Keys,
}

impl Bed {
    fn new() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::init(&folder.path().join("ca"), "c", None, NOW).unwrap();
        let own = folder.path().join("keys");
        let request = make(&own, &wanted(1)).unwrap();
        authority.sign(&request, LIFE, NOW).unwrap().0.install(&own, NOW).unwrap();
        let keys = Keys::load(&own).unwrap();
        Bed { folder, authority, keys }
    }

    /// Brings the host what the CA's folder holds.
    fn update(&self) {
        let own = self.folder.path().join("keys");
        self.authority.update().unwrap().install(&own, NOW).unwrap();
        assert!(self.keys.reload().unwrap());
    }
}

fn wanted(host: u128) -> Wanted {
    let addresses: Vec<IpAddr> = vec![ADDRESS.parse().unwrap()];
    Wanted { host: HostId(host), name: format!("host{host}"), addresses }
}

/// Under two keys, of two hosts of which one was revoked under the first, and of one that has started anew.
fn sealed(bed: &Bed) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let seal = |host, incarnation, all: &mut Vec<Vec<u8>>| {
        let mut sealer = Sealer::new(HostId(host), Life { incarnation, lot: 7 });
        for (kind, content) in [(1, &b"who takes it"[..]), (2, b""), (9, &[0; 700])] {
            let at = (Duration::from_millis(u64::from(kind)), SPREAD);
            all.push(sealer.seal(&bed.keys.held(), at, kind, content));
        }
    };
    seal(1, 5, &mut all);
    seal(2, 5, &mut all);
    bed.authority.revoke(HostId(2), NOW).unwrap();
    bed.update();
    seal(1, 6, &mut all);
    seal(2, 6, &mut all);
    all
}

#[test]
fn damaged_datagrams_do_not_open_and_genuine_ones_open_once() {
    let bed = Bed::new();
    let genuine = sealed(&bed);
    let held = bed.keys.held();
    let mut own = Sealer::new(HostId(3), Life { incarnation: 1, lot: 1 });
    let mut number = 0;
    Samples::bytes(genuine.clone()).damaged(|bytes| {
        let mut opener = Opener::default();
        let opened = opener.open(&held, bytes);
        let known = genuine.iter().any(|one| one == bytes);
        match opened {
            Ok(Opened { sender, .. }) => {
                assert!(known, "a forgery opens");
                let again = opener.open(&held, bytes);
                assert_eq!(again, Err(Refused::Stale(sender, Stale::Again)));
            }
            Err(why) => {
                assert!(!known || matches!(why, Refused::Revoked(HostId(2))), "{why}");
                assert_eq!(opener.marks(0), Marks::default(), "nothing is kept of {why}");
            }
        }
        // Whatever a host seals is opened as it was.
        number += 1;
        let datagram = own.seal(&held, (Duration::from_micros(number), SPREAD), 2, bytes);
        let opened = Opener::default().open(&held, &datagram);
        assert_eq!(opened.map(|opened| opened.content), Ok(bytes.to_vec()));
    });
}

#[test]
fn damaged_tokens_requests_grants_and_lists_are_refused_or_mean_the_same() {
    let bed = Bed::new();
    let other = bed.folder.path().join("other");
    let request = make(&other, &wanted(2)).unwrap();
    let token = bed.authority.offer(Duration::from_secs(60), None, NOW).unwrap();
    let grant = bed.authority.sign(&request, LIFE, NOW).unwrap().0;
    bed.authority.revoke(HostId(9), NOW).unwrap();
    grant::rotate(&bed.folder.path().join("ca"), NOW).unwrap();
    bed.update();
    let later = bed.authority.update().unwrap();
    let held = bed.keys.held();
    let ca = std::fs::read(bed.keys.folder().join("ca.crt")).unwrap();
    let ca = CertificateDer::from_pem_slice(&ca).unwrap();
    let certificate = grant.certificate.clone().unwrap();
    let marks = r#"{"00000000-0000-0000-0000-000000000001":{"epoch":1,"life":{"incarnation":5,"lot":7},"floor":9}}"#;
    let mut genuine = vec![
        token.to_string().into_bytes(),
        request.clone().into_bytes(),
        serde_json::to_vec(&grant).unwrap(),
        serde_json::to_vec(&later).unwrap(),
        held.revoked.der().to_vec(),
        CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap().to_vec(),
        marks.as_bytes().to_vec(),
    ];
    serde_json::from_str::<Marks>(marks).unwrap();
    let der = |pem: &str| pem_rfc(pem);
    genuine.push(der(&request));
    let into = tempfile::tempdir().unwrap();
    grant.merge(into.path(), NOW).unwrap();
    Samples::bytes(genuine).damaged(|bytes| {
        if let Ok(list) = Revoked::read(bytes, &ca) {
            let says = |list: &Revoked| (list.version, list.hosts().collect::<Vec<_>>());
            // What is around the part that is signed may differ.
            let same = says(&list) == says(&held.revoked);
            assert!(bytes.is_empty() || same, "a forged list: {list:?}");
        }
        let _ = Identity::of(bytes);
        let _ = request::read(&pem_of(bytes));
        let Ok(text) = str::from_utf8(bytes) else { return };
        if let Ok(token) = text.parse::<Token>() {
            assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        }
        if let Ok((wanted, _)) = request::read(text) {
            assert_eq!(wanted, self::wanted(2), "its signature holds");
        }
        if let Ok(marks) = serde_json::from_str::<Marks>(text) {
            let again = serde_json::to_string(&Opener::resume(marks.clone()).marks(0)).unwrap();
            assert_eq!(serde_json::from_str::<Marks>(&again).unwrap(), marks);
        }
        if let Ok(came) = serde_json::from_str::<Grant>(text) {
            let again = serde_json::to_vec(&came).unwrap();
            assert!(serde_json::from_slice::<Grant>(&again).unwrap() == came);
            let _ = came.install(into.path(), NOW);
            Grant::held(into.path()).expect("the folder stays whole");
        }
    });
}

/// Base64 of a request's PEM, taken apart by the reader of certificates: only the frame differs.
fn pem_rfc(pem: &str) -> Vec<u8> {
    let framed = pem.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    CertificateDer::from_pem_slice(framed.as_bytes()).unwrap().to_vec()
}

/// The other way.
fn pem_of(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
    for (number, part) in der.chunks(3).enumerate() {
        let bits = part.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - part.len()));
        for place in 0..4 {
            let digit = char::from(DIGITS[bits >> (18 - 6 * place) & 63]);
            text.push(if place <= part.len() { digit } else { '=' });
        }
        if number % 16 == 15 {
            text.push('\n');
        }
    }
    text + "\n-----END CERTIFICATE REQUEST-----\n"
}
