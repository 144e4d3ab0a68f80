//! What a domain's definition (libvirt's XML) says of it, and the form in which it goes to a target.
//!
//! Our own words in it stand in `<metadata>`, in a namespace of ours (who owns it in another: `witness`); those of others are not touched:
//!
//! ```text
//!   <metadata>
//!     <evenkeel:vm xmlns:evenkeel="urn:evenkeel:vm">
//!       <evenkeel:tag>plb_anti_affinity_web</evenkeel:tag>
//!     </evenkeel:vm>
//!   </metadata>
//! ```

use std::collections::BTreeMap;

use decide::migrate::hypervisor::Witness;
use decide::policy::rules::unreadable;
use decide::units::Mib;
use decide::wire::limits::{START_MAX, TAG_MAX, TAGS_MAX};
use roxmltree::{Document, Node};
use serde::{Deserialize, Serialize};

use super::super::tap::Link;
use super::disks::LocalDisk;
use super::witness;

/// The namespace of our words.
pub(super) const NAMESPACE: &str = "urn:evenkeel:vm";

/// A domain as its live definition has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    /// Its name, unique on a host.
    pub(super) name: String,
    /// What the guest may use at most.
    pub(super) memory: Mib,
    /// Virtual processors.
    pub(super) vcpus: u32,
    /// `kvm` or `tcg`.
    pub(super) accelerator: String,
    /// Machine type, fully named.
    pub(super) machine: String,
    /// Its taps and their bridges; the first is what the monitor reads.
    pub(super) links: Vec<Link>,
    /// Sorted, none twice.
    pub(super) tags: Vec<String>,
    /// Who owns it, as it says.
    pub(super) witness: Option<Witness>,
}

/// The definition cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Garbled(String);

impl From<Garbled> for String {
    fn from(Garbled(why): Garbled) -> String {
        why
    }
}

impl Garbled {
    pub(super) fn new(why: impl Into<String>) -> Garbled {
        Garbled(why.into())
    }
}

impl Definition {
    /// Reads a domain's XML.
    pub(super) fn parse(xml: &str) -> Result<Definition, Garbled> {
        let garbled = |why: &str| Garbled(format!("its definition {why}"));
        let document = Document::parse(xml).map_err(|error| garbled(&error.to_string()))?;
        let domain = document.root_element();
        let name = text(domain, "name").ok_or_else(|| garbled("has no name"))?;
        let accelerator = match domain.attribute("type") {
            Some("kvm") => "kvm",
            Some("qemu") => "tcg",
            other => {
                let other = other.unwrap_or_default();
                return Err(garbled(&format!("is of type {other:?}, not kvm or qemu")));
            }
        };
        let memory = child(domain, "memory").and_then(mib);
        let vcpus = text(domain, "vcpu").and_then(|it| it.parse().ok()).unwrap_or(1);
        let kind = child(domain, "os").and_then(|os| child(os, "type"));
        let machine = kind.and_then(|kind| kind.attribute("machine")).unwrap_or_default();
        Ok(Definition {
            name: name.to_owned(),
            memory: memory.ok_or_else(|| garbled("has no memory"))?,
            vcpus,
            accelerator: accelerator.to_owned(),
            machine: machine.to_owned(),
            links: links(domain),
            tags: tags(domain)?,
            witness: witness::of(domain),
        })
    }
}

pub(super) fn child<'a, 'b>(of: Node<'a, 'b>, name: &str) -> Option<Node<'a, 'b>> {
    of.children().find(|node| node.has_tag_name(name))
}

pub(super) fn text<'a>(of: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(of, name)?.text().map(str::trim)
}

/// A size, of which libvirt gives KiB unless it says otherwise; rounded up.
pub(super) fn mib(node: Node<'_, '_>) -> Option<Mib> {
    let amount: u64 = node.text()?.trim().parse().ok()?;
    let bytes = match node.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => amount,
        "k" | "KiB" => amount.checked_mul(1 << 10)?,
        "M" | "MiB" => amount.checked_mul(1 << 20)?,
        "G" | "GiB" => amount.checked_mul(1 << 30)?,
        _ => return None,
    };
    Some(Mib(bytes.div_ceil(1 << 20))).filter(|mib| mib.0 > 0)
}

/// Interfaces on a bridge, by name or by a network of libvirt's that is one.
fn links(domain: Node<'_, '_>) -> Vec<Link> {
    let interfaces = child(domain, "devices").into_iter().flat_map(|devices| devices.children());
    let link = |interface: Node<'_, '_>| {
        let bridge = child(interface, "source")?.attribute("bridge")?;
        let tap = child(interface, "target")?.attribute("dev")?;
        Some(Link { tap: tap.to_owned(), bridge: bridge.to_owned() })
    };
    interfaces.filter(|node| node.has_tag_name("interface")).filter_map(link).collect()
}

fn tags(domain: Node<'_, '_>) -> Result<Vec<String>, Garbled> {
    let ours = child(domain, "metadata")
        .and_then(|metadata| metadata.children().find(|it| it.has_tag_name((NAMESPACE, "vm"))));
    let words = ours.into_iter().flat_map(|ours| ours.children());
    let words = words.filter(|word| word.has_tag_name((NAMESPACE, "tag")));
    let mut tags: Vec<String> =
        words.map(|word| word.text().unwrap_or_default().trim().to_owned()).collect();
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > TAGS_MAX || tags.iter().any(|tag| tag.is_empty() || tag.len() > TAG_MAX) {
        return Err(Garbled(format!(
            "its <metadata> may hold {TAGS_MAX} tags of ours, each of 1 to {TAG_MAX} bytes"
        )));
    }
    match unreadable(&tags).into_iter().next() {
        Some(why) => Err(Garbled(why)),
        None => Ok(tags),
    }
}

/// What a target starts the incoming side from: `VmDefinition::start` of this driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    /// The live definition, as libvirt's first step of a move gives it, without the witness.
    pub(super) live: String,
    /// What that step says beside it, for the target's libvirt.
    pub(super) cookie: String,
    /// The definition for the next start, likewise; absent if it is transient.
    pub(super) kept: Option<String>,
    /// Whether it is started with its host.
    pub(super) autostart: bool,
    /// The version of QEMU where it runs, as libvirt counts.
    #[serde(default)]
    pub(super) qemu: Option<u64>,
    /// What its disks are, by path, as far as that can be told from anywhere.
    #[serde(default)]
    pub(super) disks: BTreeMap<String, String>,
    /// Those of them that may be that host's alone, and can go along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) local: Vec<LocalDisk>,
    /// Where its host's own processor is passed through to it: which that is, an element `<cpu>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) processor: Option<String>,
    /// Why libvirt would not move it as it is; then there is no cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<String>,
}

/// Whether two live definitions are the same but for what its balloon leaves the guest, which changes by itself.
pub(super) fn same_but_balloon(one: &str, other: &str) -> bool {
    let counts = |line: &&str| !line.contains("<currentMemory");
    one.lines().filter(counts).eq(other.lines().filter(counts))
}

impl Start {
    pub(super) fn format(&self) -> Result<String, Garbled> {
        let text = serde_json::to_string(self).map_err(|error| Garbled(error.to_string()))?;
        if text.len() > START_MAX {
            return Err(Garbled(format!(
                "its definition is too long to go to another host: {} of at most {START_MAX} bytes",
                text.len()
            )));
        }
        Ok(text)
    }

    /// Whether libvirt would move it at all, by what it said where it runs. Without its cookie the target's is not to be asked: it ends at that
    /// (seen with 11.3).
    pub(super) fn movable(&self) -> Result<(), String> {
        if !self.cookie.trim().is_empty() && self.refused.is_none() {
            return Ok(());
        }
        let why = self.refused.as_deref().unwrap_or("it said nothing that the target needs");
        Err(format!("libvirt would not move it where it runs: {why}"))
    }

    pub(super) fn parse(text: &str) -> Result<Start, Garbled> {
        serde_json::from_str(text).map_err(|error| Garbled(format!("its definition: {error}")))
    }
}

/// Where an incoming side listens, and what its libvirt says to the source's: `Endpoint::uri` of this driver, which is
/// `uri [disks:vda,vdb] cookie`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listens {
    /// Where QEMU listens.
    pub(super) uri: String,
    /// Disks that are to go along, by what the guest sees.
    pub(super) disks: Vec<String>,
    /// For the source's libvirt.
    pub(super) cookie: String,
}

const DISKS: &str = "disks:";

impl Listens {
    pub(super) fn format(&self) -> String {
        let Listens { uri, disks, cookie } = self;
        if disks.is_empty() {
            return format!("{uri} {cookie}");
        }
        format!("{uri} {DISKS}{} {cookie}", disks.join(","))
    }

    pub(super) fn parse(text: &str) -> Result<Listens, Garbled> {
        let garbled = || Garbled("it names no address and cookie".to_owned());
        let (uri, rest) =
            text.split_once(' ').filter(|(uri, _)| !uri.is_empty()).ok_or_else(garbled)?;
        let (disks, cookie) = match rest.strip_prefix(DISKS) {
            Some(rest) => rest.split_once(' ').ok_or_else(garbled)?,
            None => ("", rest),
        };
        let disks = disks.split(',').filter(|disk| !disk.is_empty()).map(str::to_owned).collect();
        Ok(Listens { uri: uri.to_owned(), disks, cookie: cookie.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"<domain type='qemu' id='3'>
      <name>web1</name><uuid>ea9521d5-038f-469e-8c3c-7596f35a38e6</uuid>
      <metadata>
        <other:thing xmlns:other="urn:other"><other:tag>theirs</other:tag></other:thing>
        <e:vm xmlns:e="urn:evenkeel:vm"><e:tag> b </e:tag><e:tag>a</e:tag><e:tag>a</e:tag></e:vm>
      </metadata>
      <memory unit='KiB'>163841</memory><vcpu placement='static'>2</vcpu>
      <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>
      <devices>
        <interface type='user'><mac address='52:54:00:00:00:01'/></interface>
        <interface type='bridge'><source bridge='br0'/><target dev='vnet0'/></interface>
        <interface type='network'><source network='default' bridge='virbr0'/><target dev='vnet1'/></interface>
      </devices>
    </domain>"#;

    #[test]
    fn a_definition_is_the_same_whatever_its_balloon_leaves_but_not_with_another_disk() {
        let told = "<domain>\n  <memory>4</memory>\n  <currentMemory>4</currentMemory>\n  <source file='a'/>\n</domain>";
        assert!(same_but_balloon(told, &told.replace("<currentMemory>4", "<currentMemory>3")));
        assert!(!same_but_balloon(told, &told.replace("'a'", "'b'")));
        assert!(!same_but_balloon(told, &told.replace("<memory>4", "<memory>5")));
    }

    #[test]
    fn a_live_definition_says_what_the_domain_is() {
        let read = Definition::parse(GOOD).unwrap();
        assert_eq!((read.name.as_str(), read.memory, read.vcpus), ("web1", Mib(161), 2));
        assert_eq!((read.accelerator.as_str(), read.machine.as_str()), ("tcg", "pc-i440fx-7.2"));
        assert_eq!(read.tags, ["a", "b"], "those of others are not ours");
        let links: Vec<_> = read.links.iter().map(|it| (&*it.tap, &*it.bridge)).collect();
        assert_eq!(links, [("vnet0", "br0"), ("vnet1", "virbr0")]);
    }

    #[test]
    fn each_mistake_is_named() {
        for (from, to, said) in [
            ("type='qemu' ", "type='lxc' ", "\"lxc\", not kvm"),
            ("<name>web1</name>", "", "no name"),
            ("163841", "many", "no memory"),
            ("</domain>", "", "its definition"),
            ("<e:tag> b </e:tag>", "<e:tag></e:tag>", "each of 1 to"),
            ("<e:tag> b </e:tag>", "<e:tag>evenkeel:pin</e:tag>", "write it as evenkeel:pin=NAME"),
        ] {
            let why = Definition::parse(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(why.contains(said), "{to}: {why}");
        }
    }

    #[test]
    fn where_a_target_listens_is_read_at_the_source() {
        for disks in [vec![], vec!["vda".to_owned()], vec!["vda".to_owned(), "sdb".to_owned()]] {
            let (uri, cookie) = ("tcp:[fd00::2]:49152".into(), "<a b='c'/>\n".into());
            let listens = Listens { uri, disks, cookie };
            assert_eq!(Listens::parse(&listens.format()), Ok(listens));
        }
        assert!(Listens::parse("tcp:host2:1 disks:vda").is_err());
        assert!(Listens::parse("tcp:host2:49152").is_err() && Listens::parse(" <a/>").is_err());
    }

    #[test]
    fn what_goes_to_a_target_is_read_there_and_not_too_long() {
        let start = Start {
            live: GOOD.into(),
            cookie: "<c/>".into(),
            kept: Some(GOOD.into()),
            autostart: true,
            qemu: Some(10_000_002),
            disks: [("/d.img".to_owned(), "inode 7".to_owned())].into(),
            local: Vec::new(),
            processor: Some("<cpu/>".into()),
            refused: None,
        };
        assert_eq!(Start::parse(&start.format().unwrap()), Ok(start.clone()));
        let long = Start { live: "x".repeat(START_MAX), ..start.clone() };
        assert!(long.format().unwrap_err().to_string().contains("too long"));
        assert!(Start::parse("{\"live\": 3}").is_err());
        assert_eq!(start.movable(), Ok(()));
        let why = |cookie: &str, refused: Option<&str>| {
            let refused = refused.map(str::to_owned);
            Start { cookie: cookie.into(), refused, ..start.clone() }.movable().unwrap_err()
        };
        assert!(why("", Some("it has snapshots")).ends_with("it has snapshots"));
        assert!(why(" ", None).contains("said nothing"));
    }
}
