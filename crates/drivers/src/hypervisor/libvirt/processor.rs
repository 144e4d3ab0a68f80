//! Processors that are passed through to the guest as they are: the definition names no model, so hosts compare what each can show at most.
//!
//! ```text
//!   source: what it can show at most ─▶ `Start::processor` ─▶ target: the same model, and every feature of it, or no move
//! ```
//!
//! A guest that was shown its host's own processor must find the same after its move: a feature that is gone is a crash, and what follows
//! from the model (sizes, flaws that the guest works around) was read once, at its start.

use roxmltree::{Document, Node};

use super::calls::CpuOf;
use super::definition::{Garbled, child, text};
use super::rpc::{Rpc, RpcError};

/// What of a processor counts: its model, who made it, its features.
const PARTS: [&str; 3] = ["model", "vendor", "feature"];

/// The most that a guest like this can be shown here, as an element `<cpu>`. None where libvirt does not say: it does so for x86.
pub(super) async fn here(rpc: &Rpc, of: &CpuOf) -> Result<Option<String>, RpcError> {
    match rpc.domain_capabilities(of).await {
        Ok(capabilities) => Ok(most(&capabilities)),
        // An old one, or another architecture's.
        Err(RpcError::Refused { message, .. }) => {
            tracing::info!(message, "libvirt does not say what processor is passed through");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The processor to compare with this host's, where it is of the same model as that is.
///
/// # Errors
/// In words, why the VM cannot come.
pub(super) async fn same_model(
    rpc: &Rpc,
    of: &CpuOf,
    there: Option<&str>,
) -> Result<Option<CpuOf>, String> {
    let here = here(rpc, of).await.map_err(|error| error.to_string())?;
    judge(of, there, here.as_deref())?;
    Ok(there.map(|there| CpuOf { xml: there.to_owned(), ..of.clone() }))
}

fn judge(of: &CpuOf, there: Option<&str>, here: Option<&str>) -> Result<(), String> {
    let through = "its processor is its host's own, passed through";
    let (there, here) = match (there, here) {
        (Some(there), Some(here)) => (there, here),
        // What there is no word for is left to libvirt's own check.
        (None, _) if !of.arch.starts_with("x86") && of.arch != "i686" => return Ok(()),
        (None, _) => {
            return Err(format!(
                "{through}, and libvirt there does not say which: give the VM a model by name (<cpu mode='custom'>), or move it shut off"
            ));
        }
        (Some(_), None) => {
            return Err(format!("{through}, and libvirt here does not say what it can show"));
        }
    };
    let garbled = |why: Garbled| format!("{through}: {}", String::from(why));
    let (there, here) = (model(there).map_err(garbled)?, model(here).map_err(garbled)?);
    if there == here {
        return Ok(());
    }
    Err(format!(
        "{through}: {there} where it runs, {here} here: move it to a host with the same, or give it a model that both have (<cpu mode='custom'>)"
    ))
}

/// The model that an element `<cpu>` names.
fn model(cpu: &str) -> Result<String, Garbled> {
    let document = Document::parse(cpu).map_err(|error| Garbled::new(error.to_string()))?;
    let named = text(document.root_element(), "model").filter(|model| !model.is_empty());
    named.map(str::to_owned).ok_or_else(|| Garbled::new("no model is named"))
}

/// The mode `host-model` of a host's capabilities for domains, as a processor of its own.
fn most(capabilities: &str) -> Option<String> {
    let document = Document::parse(capabilities).ok()?;
    let modes = child(document.root_element(), "cpu")?;
    let is = |node: &Node<'_, '_>| {
        let says = |name: &str, value: &str| node.attribute(name) == Some(value);
        node.has_tag_name("mode") && says("name", "host-model") && says("supported", "yes")
    };
    let host = modes.children().find(is)?;
    child(host, "model")?;
    let parts = host.children().filter(|it| PARTS.contains(&it.tag_name().name()));
    let parts: String = parts.filter_map(|part| capabilities.get(part.range())).collect();
    Some(format!("<cpu mode='custom' match='exact'>{parts}</cpu>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPABILITIES: &str = "<domainCapabilities><cpu>
      <mode name='host-passthrough' supported='yes'/>
      <mode name='host-model' supported='yes'>
        <model fallback='forbid'>EPYC-Milan</model>
        <vendor>AMD</vendor>
        <maxphysaddr mode='passthrough' limit='48'/>
        <feature policy='require' name='vaes'/><feature policy='disable' name='pcid'/>
      </mode>
      <mode name='custom' supported='yes'><model usable='yes'>qemu64</model></mode>
    </cpu></domainCapabilities>";

    fn of(arch: &str) -> CpuOf {
        let (machine, kind, xml) =
            ("pc".into(), "kvm".into(), "<cpu mode='host-passthrough'/>".into());
        CpuOf { emulator: None, arch: arch.into(), machine, kind, xml }
    }

    #[test]
    fn what_a_host_can_show_at_most_is_its_model_with_all_features() {
        let most = most(CAPABILITIES).unwrap();
        assert_eq!(
            most,
            "<cpu mode='custom' match='exact'><model fallback='forbid'>EPYC-Milan</model><vendor>AMD</vendor>\
             <feature policy='require' name='vaes'/><feature policy='disable' name='pcid'/></cpu>"
        );
        assert_eq!(model(&most), Ok("EPYC-Milan".to_owned()));
        let without =
            CAPABILITIES.replace("'host-model' supported='yes'", "'host-model' supported='no'");
        assert_eq!(super::most(&without), None);
        assert_eq!(super::most("<domainCapabilities/>"), None);
    }

    #[test]
    fn only_one_of_the_same_model_may_come_and_the_refusal_names_both() {
        let cpu = |model: &str| format!("<cpu><model>{model}</model></cpu>");
        let (milan, genoa) = (cpu("EPYC-Milan"), cpu("EPYC-Genoa"));
        assert_eq!(judge(&of("x86_64"), Some(&milan), Some(&milan)), Ok(()));
        let refused = |there, here| judge(&of("x86_64"), there, here).unwrap_err();
        let why = refused(Some(&*genoa), Some(&*milan));
        assert!(why.contains("EPYC-Genoa where it runs, EPYC-Milan here"), "{why}");
        assert!(refused(None, Some(&*milan)).contains("libvirt there does not say which"));
        assert!(refused(Some(&*milan), None).contains("libvirt here does not say"));
        assert!(refused(Some("<cpu/>"), Some(&*milan)).contains("no model is named"));
        assert!(
            refused(Some("<cpu"), Some(&*milan)).starts_with("its processor is its host's own")
        );
        assert_eq!(judge(&of("aarch64"), None, None), Ok(()));
    }
}
