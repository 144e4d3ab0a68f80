//! What an agent writes is for its user alone, whatever the umask that it was started with.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::{BalancerRequest, DrainRequest, Role, TokenRequest};

use alone::Agent;

mod alone;

/// Of this test alone.
const ADDRESS: &str = "127.78.0.21";

/// All that lies below, but for links: they have no mode of their own.
fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let kind = fs::symlink_metadata(&path).expect("it is there").file_type();
        if kind.is_dir() {
            below(&path, found);
        }
        if !kind.is_symlink() {
            found.push(path);
        }
    }
}

/// Those that group or others may do anything with.
fn open_to_others(found: &[PathBuf]) -> Vec<String> {
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    let open = found.iter().filter(|path| mode(path) & 0o077 != 0);
    open.map(|path| format!("{:o} {}", mode(path), path.display())).collect()
}

#[tokio::test]
async fn what_an_agent_writes_is_for_its_user_alone() {
    let mut agent = Agent::new(ADDRESS);
    agent.start();
    agent.has_told(0).await;
    let api = agent.api();
    api.switch_balancer(BalancerRequest { on: false }).await.expect("it is off");
    api.set_drain(&DrainRequest { on: true, host: None }).await.expect("it drains");
    let token = TokenRequest { name: "x".to_owned(), role: Role::Viewer, days: 1 };
    api.make_token(&token).await.expect("a token");
    agent.has_read(2).await;

    let folder = agent.folder.path();
    let mut found: Vec<PathBuf> = ["state", "qemu", "record"].map(|name| folder.join(name)).into();
    for name in ["state", "qemu", "record"] {
        below(&folder.join(name), &mut found);
    }
    found.extend(["api.lock", "journal-seen"].map(|name| folder.join(name)));
    let names: Vec<_> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    let written = ["audit.log", "balancer-off", "drain.json", "events.redb", "history.redb"];
    for name in written.iter().chain(&["journal.redb", "lock", "tokens.json"]) {
        assert!(names.contains(name), "{name} is not there: {names:?}");
    }
    assert!(names.iter().any(|name| name.ends_with(".jsonl.lz4")), "{names:?}");
    assert_eq!(open_to_others(&found), Vec::<String>::new());

    // The group may connect to the socket, where there is one.
    let socket = fs::metadata(folder.join("api")).expect("a socket");
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);

    // The look itself is not blind.
    fs::set_permissions(agent.config(), fs::Permissions::from_mode(0o640)).expect("changed");
    assert_eq!(open_to_others(&[agent.config()]).len(), 1);
}
