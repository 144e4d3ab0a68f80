//! The config that operators copy, read by the agent's own reader.

use std::path::Path;

use agent::config::{Config, Told};
use decide::policy::settings::{Encryption, Settings};

fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/evenkeel.toml");
    std::fs::read_to_string(path).expect("the file is there and the disk takes it")
}

fn read(text: &str) -> Result<Config, Vec<String>> {
    let folder = tempfile::tempdir().expect("the file is there and the disk takes it");
    let path = folder.path().join("evenkeel.toml");
    std::fs::write(&path, text).expect("the file is there and the disk takes it");
    Config::read(&path).map(|(config, _)| config)
}

/// The example with each `# key = value` taken at its word.
fn with_every_key() -> String {
    let key = |line: &&str| line.starts_with("# ") && line.contains(" = ");
    example()
        .lines()
        .map(|line| if key(&line) { line.trim_start_matches("# ") } else { line })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_example_config_is_read_as_it_is() {
    assert_eq!(
        read(&example()).expect("the file is there and the disk takes it").settings(),
        Settings::default()
    );
}

#[test]
fn every_default_that_the_example_shows_is_the_default() {
    let (plain, shown) = (
        read(&example()).expect("the file is there and the disk takes it"),
        read(&with_every_key()).unwrap(),
    );
    let mut settings = shown.settings();
    assert!(settings.hot.packets_per_second.take().is_some(), "shown, and off by default");
    assert!(settings.limits.moves_per_cluster.take().is_some(), "shown, and off by default");
    let encryption = settings.migration.encryption.take();
    assert_eq!(
        encryption,
        Some(Encryption::Required),
        "shown, and the default where there are keys"
    );
    let mut expressions = [
        settings.vm_policy.when.take(),
        settings.vm_policy.order.take(),
        settings.admission.accept.take(),
        settings.migration_policy.order.take(),
        settings.migration_policy.reject.take(),
    ]
    .into_iter();
    assert!(expressions.all(|shown| shown.is_some()), "shown, and none by default");
    assert!(settings.vm_policy.window.take().is_some(), "shown, and `hot.for` by default");
    assert_eq!(settings, Settings::default());
    let cluster = |config: &Config| {
        let cluster = &config.cluster;
        (cluster.name.clone(), cluster.seeds.clone(), cluster.request, cluster.group)
    };
    assert_eq!(cluster(&shown), cluster(&plain));
    let host = |config: &Config| {
        let host = &config.host;
        (host.address, host.port, host.state.clone(), host.qemu.clone(), host.api.clone())
    };
    assert_eq!(host(&shown), host(&plain));
    assert_eq!(shown.hypervisor, plain.hypervisor);
    assert!(shown.api.listen.is_some() && plain.api.listen.is_none(), "off by default");
    assert_eq!(shown.api.group, plain.api.group);
    assert!(shown.record.folder.is_some() && plain.record.folder.is_none(), "off by default");
    assert_eq!(shown.record.size_max, plain.record.size_max);
}

/// The example's webhook, and what its lines say.
#[test]
fn the_webhook_that_the_example_shows_is_one_with_every_key() {
    let text = example();
    let lines: Vec<&str> =
        text.lines().skip_while(|line| *line != "#[[webhook]]").take(5).collect();
    let hook = lines.iter().map(|line| format!("{}\n", &line[1..])).collect::<String>();
    let read = read(&format!("{text}\n{hook}")).expect("it is read").webhook;
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].events, [Told::Alarms, Told::Moves], "the default");
    assert_eq!(read[0].secret_file, Path::new("/etc/evenkeel/hook.key"));
    assert!(read[0].ca_file.is_some() && read[0].url.tls);
}

/// The same of the traces.
#[test]
fn the_traces_that_the_example_shows_have_every_key() {
    let text = example();
    assert_eq!(read(&text).expect("it is read").traces, None, "off by default");
    let lines: Vec<&str> = text.lines().skip_while(|line| *line != "#[traces]").take(4).collect();
    let section = lines.iter().map(|line| format!("{}\n", &line[1..])).collect::<String>();
    let with = |section: &str| read(&format!("{text}\n{section}"));
    let clear = with(&section.replace("https:", "http:"));
    assert!(clear.unwrap_err()[0].contains("write https"), "a header wants https");
    let traces = with(&section).expect("it is read").traces;
    let traces = traces.expect("the section is there");
    assert_eq!((&*traces.url.path, traces.url.port), ("/v1/traces", 4318));
    assert!(traces.header_file.is_some() && traces.ca_file.is_some());
}

#[test]
fn a_key_that_the_agent_does_not_know_is_refused() {
    let wrong = with_every_key().replace("cpu_used =", "cpu_usd =");
    assert!(read(&wrong).is_err(), "the reader still refuses unknown keys");
}

/// The blocks of configuration that a page shows; hosts.md shows a VM's definition, which is none.
fn shown() -> Vec<(String, String)> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut shown = Vec::new();
    for entry in std::fs::read_dir(docs).expect("the pages are there") {
        let path = entry.expect("a page is there").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Without the driver libvirt.md is rightly refused.
        let known = name != "libvirt.md" || cfg!(feature = "libvirt");
        if name.ends_with(".md") && name != "hosts.md" && known {
            let page = std::fs::read_to_string(&path).expect("a page is text");
            let blocks = page.split("```toml\n").skip(1);
            shown.extend(blocks.map(|rest| {
                (name.clone(), rest.split("```").next().unwrap_or_default().to_owned())
            }));
        }
    }
    shown
}

#[test]
fn every_configuration_that_the_pages_show_is_right_and_balances_well() {
    let shown = shown();
    assert!(shown.len() > 8, "{shown:?}");
    for (page, block) in shown {
        let whole = |section: &str, line: &str| match block.contains(&format!("[{section}]\n")) {
            true => String::new(),
            false => format!("[{section}]\n{line}\n"),
        };
        let text = format!(
            "{}{}{block}",
            whole("cluster", "name = \"c\""),
            whole("host", "address = \"198.18.0.1\"")
        );
        let folder = tempfile::tempdir().expect("the disk takes it");
        let path = folder.path().join("evenkeel.toml");
        std::fs::write(&path, &text).expect("the disk takes it");
        let read = Config::read(&path).map(|(_, doubtful)| doubtful);
        assert_eq!(read, Ok(None), "docs/{page}:\n{text}");
    }
}
