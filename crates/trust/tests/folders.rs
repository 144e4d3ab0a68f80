//! The CA's folder and a host's: what is written, who may read it, and what is refused.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use decide::units::HostId;
use trust::authority::{Authority, CA_KEY, LIFE};
use trust::grant::Grant;
use trust::identity::Unix;
use trust::keys::{CLUSTER_KEYS, HOST_CERTIFICATE, HOST_KEY, Keys};
use trust::request::{self, Wanted, make};

const NOW: Unix = Unix(1_790_000_000);
const PASSPHRASE: &str = "correct horse battery";

struct Bed(tempfile::TempDir);

impl Bed {
    fn new() -> Bed {
        Bed(tempfile::tempdir().expect("a folder"))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn ca(&self) -> Authority {
        Authority::init(&self.at("ca"), "prod", None, NOW).expect("a CA")
    }

    fn request(&self, host: u128) -> String {
        make(&self.at(&format!("keys{host}")), &wanted(host)).expect("a request")
    }

    fn granted(&self, ca: &Authority, host: u128) -> Keys {
        let (grant, _) = ca.sign(&self.request(host), LIFE, NOW).expect("signed");
        let folder = self.at(&format!("keys{host}"));
        let came = grant.install(&folder, NOW).expect("installed").expect("a certificate");
        assert_eq!((came.host, came.issued), (HostId(host), NOW));
        let keys = Keys::load(&folder).expect("loaded");
        let ends = (keys.held().identity.ends, keys.held().ca_ends);
        let after = |days: u64| Unix(NOW.0 + days * 24 * 3600);
        assert_eq!(ends, (after(30), after(20 * 365)));
        keys
    }
}

fn wanted(host: u128) -> Wanted {
    let addresses: Vec<IpAddr> =
        ["10.0.0.1", "fd00::1"].map(|text| text.parse().expect("an address")).into();
    Wanted { host: HostId(host), name: format!("host{host}"), addresses }
}

fn why<T: std::fmt::Debug>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.expect_err("it is refused"))
}

#[test]
fn every_file_with_a_secret_is_for_its_owner_alone() {
    let bed = Bed::new();
    let ca = bed.ca();
    bed.granted(&ca, 1);
    ca.update().expect("an update").write(&bed.at("grant")).expect("written");
    let mut seen = 0;
    for folder in ["ca", "keys1"] {
        assert_eq!(mode(&bed.at(folder)), 0o700);
        for entry in fs::read_dir(bed.at(folder)).expect("listed") {
            let path = entry.expect("an entry").path();
            assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 });
            seen += 1;
        }
    }
    assert_eq!((seen, mode(&bed.at("grant"))), (4 + 4, 0o600));
    for secret in [HOST_KEY, CLUSTER_KEYS] {
        let file = bed.at("keys1").join(secret);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("set");
        let why = why(Keys::load(&bed.at("keys1")));
        assert!(why.contains(secret) && why.contains("run chmod 600"), "{why}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
    }
    fs::set_permissions(bed.at("grant"), fs::Permissions::from_mode(0o640)).expect("set");
    assert!(why(Grant::read(&bed.at("grant"))).contains("can be read by others"));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn a_passphrase_opens_the_cas_key_and_nothing_else_does() {
    let bed = Bed::new();
    let folder = bed.at("ca");
    let short = why(Authority::init(&folder, "prod", Some("short"), NOW));
    assert!(short.contains("5 bytes is too short"), "{short}");
    Authority::init(&folder, "prod", Some(PASSPHRASE), NOW).expect("a CA");
    let stored = fs::read_to_string(folder.join(CA_KEY)).expect("read");
    assert!(stored.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{stored}");
    let asked = why(Authority::open(&folder, None));
    assert!(asked.ends_with("is encrypted: give its passphrase by --passphrase-file"), "{asked}");
    let wrong = why(Authority::open(&folder, Some("correct horse")));
    assert!(wrong.ends_with("the passphrase does not open it"), "{wrong}");
    let ca = Authority::open(&folder, Some(PASSPHRASE)).expect("it opens");
    bed.granted(&ca, 1);
    assert!(why(Authority::init(&folder, "prod", None, NOW)).contains("is there already"));
    let none = why(Authority::open(&bed.at("none"), None));
    assert!(none.ends_with("run `evenkeel ca init`"), "{none}");
}

#[test]
fn a_request_says_who_asks_and_proves_its_key() {
    let bed = Bed::new();
    let asked = bed.request(7);
    assert_eq!(request::read(&asked).expect("read").0, wanted(7));
    let garbled = asked.replacen("MII", "MIJ", 1);
    assert!(why(request::read(&garbled)).starts_with("no request for a certificate"));
    let own = |wanted: Wanted| why(make(&bed.at("x"), &wanted));
    assert!(own(Wanted { addresses: vec![], ..wanted(7) }).starts_with("0 addresses"));
    let any: IpAddr = "0.0.0.0".parse().expect("an address");
    assert!(own(Wanted { addresses: vec![any], ..wanted(7) }).contains("cannot be reached"));
    assert!(
        own(Wanted { name: "a\nb".to_owned(), ..wanted(7) }).contains("cannot be a host's name")
    );
    assert!(own(wanted(0)).contains("no id 0"));
}

/// A request that asks for more than a host may have, as only an attacker writes it.
#[test]
fn a_request_gets_nothing_that_a_host_may_not_have() {
    let bed = Bed::new();
    let key = rcgen::KeyPair::generate().expect("a key");
    let asked = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "host7");
        let uri = format!("evenkeel://host/{}", HostId(7)).try_into().expect("text");
        let here = "10.0.0.1".parse().expect("an address");
        params.subject_alt_names = vec![rcgen::SanType::URI(uri), rcgen::SanType::IpAddress(here)];
        change(&mut params);
        params.serialize_request(&key).and_then(|asked| asked.pem()).expect("a request")
    };
    let second = |params: &mut rcgen::CertificateParams| {
        let uri = format!("evenkeel://host/{}", HostId(8)).try_into().expect("text");
        params.subject_alt_names.push(rcgen::SanType::URI(uri));
    };
    assert!(why(request::read(&asked(&second))).ends_with("more than one host"));
    let named = |params: &mut rcgen::CertificateParams| {
        let name = "example.org".try_into().expect("text");
        params.subject_alt_names.push(rcgen::SanType::DnsName(name));
    };
    assert!(why(request::read(&asked(&named))).starts_with("a request for another name"));
    // To be a CA is not granted: what is signed is written anew.
    let ca_asked = asked(&|params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let (grant, _) = bed.ca().sign(&ca_asked, LIFE, NOW).expect("signed");
    let pem = grant.certificate.expect("a certificate");
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
    assert!(!block.parse_x509().expect("a certificate").is_ca());
}

#[test]
fn a_grant_goes_only_where_its_key_is_and_never_backwards() {
    let bed = Bed::new();
    let ca = bed.ca();
    let (for_one, _) = ca.sign(&bed.request(1), LIFE, NOW).expect("signed");
    bed.request(2);
    let other_key = why(for_one.install(&bed.at("keys2"), NOW));
    assert!(other_key.contains("run `evenkeel keys request` there"), "{other_key}");
    for_one.install(&bed.at("keys1"), NOW).expect("installed");
    // Twice does no harm.
    for_one.install(&bed.at("keys1"), NOW).expect("installed");
    let file = bed.at("grant");
    for_one.write(&file).expect("written");
    assert_eq!(Grant::read(&file).expect("read"), for_one);

    let old = ca.update().expect("an update");
    ca.revoke(HostId(9), NOW).expect("revoked");
    ca.update().expect("an update").install(&bed.at("keys1"), NOW).expect("installed");
    // What is older takes nothing back.
    old.install(&bed.at("keys1"), NOW).expect("installed");
    assert!(!old.merge(&bed.at("keys1"), NOW).expect("merged"));
    let held = Keys::load(&bed.at("keys1")).expect("loaded").held();
    assert_eq!((held.revoked.version, held.newest()), (1, 2));

    let elsewhere = Bed::new();
    let other = elsewhere.ca().update().expect("an update");
    assert!(why(other.install(&bed.at("keys1"), NOW)).contains("of another CA"));
    let forged = Grant { revoked: ca_list(&elsewhere), ..ca.update().expect("an update") };
    let forged = why(forged.install(&bed.at("keys1"), NOW));
    assert!(forged.contains("was not signed by this cluster's CA"), "{forged}");
}

/// A list of revocations by another CA.
fn ca_list(bed: &Bed) -> String {
    let ca = Authority::open(&bed.at("ca"), None).expect("it opens");
    for _ in 0..5 {
        ca.revoke(HostId(1), NOW).expect("revoked");
    }
    ca.update().expect("an update").revoked
}

#[test]
fn keys_that_do_not_belong_together_are_named() {
    let bed = Bed::new();
    let ca = bed.ca();
    let one = bed.granted(&ca, 1);
    bed.granted(&ca, 2);
    let (first, second) = (bed.at("keys1"), bed.at("keys2"));
    fs::copy(second.join(HOST_KEY), first.join(HOST_KEY)).expect("copied");
    assert!(why(Keys::load(&first)).contains("do not belong together"));
    // Another host's keys are not taken up while the agent runs; what was held still is.
    fs::copy(second.join(HOST_CERTIFICATE), first.join(HOST_CERTIFICATE)).expect("copied");
    let other = why(one.reload());
    assert!(other.contains("the certificate of another host"), "{other}");
    assert_eq!(one.held().identity.host, HostId(1));
    fs::remove_file(first.join(CLUSTER_KEYS)).expect("removed");
    assert!(why(Keys::load(&first)).contains(CLUSTER_KEYS));
}

#[test]
fn nothing_that_is_shown_of_keys_holds_a_secret() {
    let bed = Bed::new();
    let ca = bed.ca();
    let keys = bed.granted(&ca, 1);
    let shown = format!("{keys:?} {ca:?} {:?}", ca.update().expect("an update"));
    let folder = bed.at("keys1");
    for file in [HOST_KEY, CLUSTER_KEYS] {
        let text = fs::read_to_string(folder.join(file)).expect("read");
        let parts = text.split(|c: char| !c.is_alphanumeric()).filter(|part| part.len() > 30);
        for part in parts {
            assert!(!shown.contains(&part[..16]), "{file}: {shown}");
        }
    }
}

#[test]
fn who_was_cut_off_between_certificate_and_key_goes_on_with_both() {
    let bed = Bed::new();
    let ca = bed.ca();
    let keys = bed.granted(&ca, 1);
    let folder = bed.at("keys1");
    let before = fs::read(folder.join(HOST_KEY)).expect("read");
    let (grant, _) = ca.sign(&bed.request(1), LIFE, Unix(NOW.0 + 60)).expect("signed");
    let next = fs::read(folder.join("host.key.next")).expect("read");
    grant.install(&folder, NOW).expect("installed");
    assert!(!folder.join("host.key.next").exists());
    assert_eq!(fs::read(folder.join(HOST_KEY)).expect("read"), next);

    // The certificate was written, and the key not yet put in its place.
    fs::write(folder.join("host.key.next"), next.clone()).expect("written");
    fs::set_permissions(folder.join("host.key.next"), fs::Permissions::from_mode(0o600))
        .expect("set");
    fs::write(folder.join(HOST_KEY), before).expect("written");
    assert!(keys.reload().expect("read anew"));
    assert_eq!(keys.held().identity.issued, Unix(NOW.0 + 60));
    // A request that is made then does not take its place.
    bed.request(1);
    assert_eq!(fs::read(folder.join(HOST_KEY)).expect("read"), next);
    assert_eq!(Keys::load(&folder).expect("loaded").held().identity.issued, Unix(NOW.0 + 60));
}

#[test]
fn of_many_that_change_a_folder_at_once_each_counts() {
    let bed = Bed::new();
    let ca = bed.ca();
    bed.granted(&ca, 1);
    let folder = bed.at("keys1");
    std::thread::scope(|all| {
        for _ in 0..4 {
            let rotate = || {
                (0..5).for_each(|_| assert!(trust::grant::rotate(&folder, NOW).expect("made") > 1))
            };
            all.spawn(rotate);
        }
    });
    assert_eq!(Keys::load(&folder).expect("loaded").held().newest(), 21);
}

#[test]
fn a_token_that_was_given_out_before_a_revocation_lets_nobody_in() {
    let bed = Bed::new();
    let ca = bed.ca();
    bed.granted(&ca, 1);
    let from = "10.0.0.1".parse().expect("an address");
    let token = ca.offer(std::time::Duration::from_secs(60), Some(from), NOW).expect("a token");
    ca.revoke(HostId(1), NOW).expect("revoked");
    let refused = why(ca.enrol(&token, &bed.request(1), from, NOW));
    assert!(refused.contains("the token is unknown, used or over"), "{refused}");
}

#[test]
fn a_key_that_waits_and_is_none_keeps_no_revocation_waiting() {
    let bed = Bed::new();
    let ca = bed.ca();
    let keys = bed.granted(&ca, 1);
    let folder = bed.at("keys1");
    fs::write(folder.join("host.key.next"), "no key").expect("written");
    fs::set_permissions(folder.join("host.key.next"), fs::Permissions::from_mode(0o644))
        .expect("set");
    ca.revoke(HostId(9), NOW).expect("revoked");
    assert!(ca.update().expect("an update").merge(&folder, NOW).expect("merged"));
    assert!(keys.reload().expect("read anew"));
    assert_eq!(keys.held().revoked.version, 1);
}
