//! Who is at the other end of a connection: on the unix socket by the kernel's word, on TCP no more than an address, of another host what its
//! certificate says.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{UnixListener, UnixStream};

/// The other end, as it was when it connected.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// A process of this machine.
    Unix(Process),
    /// Something somewhere.
    Tcp(SocketAddr),
    /// Another host of the cluster, by its name for people: it asks for somebody who may look there.
    Host(String),
}

/// A process, by the kernel's word (`SO_PEERCRED`, `SO_PEERGROUPS`); none, where it does not tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    pub(super) uid: Option<u32>,
    pub(super) pid: Option<i32>,
    groups: Arc<[u32]>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Peer {
        Peer::Unix(Process::of(stream.io()))
    }
}

impl Process {
    fn of(stream: &UnixStream) -> Process {
        let Ok(found) = stream.peer_cred() else { return Process::default() };
        let mut groups = drivers::peer::groups(stream).unwrap_or_default();
        groups.push(found.gid());
        Process { uid: Some(found.uid()), pid: found.pid(), groups: groups.into() }
    }
}

/// Who may do all over the unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// These users.
    pub uids: Vec<u32>,
    /// The name of the group whose members may too.
    pub group: String,
    /// Its number; absent: there is no such group.
    pub gid: Option<u32>,
}

impl Admitted {
    /// Root, the agent's own user, and members of `group`, as `/etc/group` knows it now.
    #[must_use]
    pub fn of(group: &str) -> Admitted {
        let own = rustix::process::geteuid().as_raw();
        let uids = if own == 0 { vec![0] } else { vec![0, own] };
        Admitted { uids, group: group.to_owned(), gid: number("/etc/group", group) }
    }

    pub(super) fn admits(&self, process: &Process) -> bool {
        let user = process.uid.is_some_and(|uid| self.uids.contains(&uid));
        user || self.gid.is_some_and(|gid| process.groups.contains(&gid))
    }

    /// What a user who is not admitted can do about it.
    pub(super) fn way_in(&self, user: &str) -> String {
        let group = &self.group;
        match self.gid {
            Some(_) => format!(
                "Run this as root, or join the group {group} (`usermod -aG {group} {user}`, then log in anew)"
            ),
            None => format!(
                "Run this as root; or make the group {group} (`groupadd {group}`), restart evenkeeld and join it (`usermod -aG {group} {user}`, then log in anew)"
            ),
        }
    }
}

/// Name of a user, as `/etc/passwd` knows it.
pub(super) fn user(uid: u32) -> Option<String> {
    name(&fs::read_to_string("/etc/passwd").ok()?, uid)
}

fn number(file: &str, name: &str) -> Option<u32> {
    number_in(&fs::read_to_string(file).ok()?, name)
}

fn number_in(text: &str, wanted: &str) -> Option<u32> {
    entries(text).find(|(name, _)| *name == wanted).and_then(|(_, number)| number)
}

fn name(text: &str, wanted: u32) -> Option<String> {
    entries(text).find(|(_, number)| *number == Some(wanted)).map(|(name, _)| name.to_owned())
}

/// Name and number of each line of passwd(5) or group(5).
fn entries(text: &str) -> impl Iterator<Item = (&str, Option<u32>)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, number) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, number.parse().ok()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(uid: u32, groups: &[u32]) -> Process {
        Process { uid: Some(uid), pid: Some(1), groups: groups.into() }
    }

    #[test]
    fn root_the_own_user_and_members_of_the_group_are_admitted_and_nobody_else() {
        let admitted = Admitted { uids: vec![0, 990], group: "evenkeel".to_owned(), gid: Some(77) };
        for (process, is) in [
            (process(0, &[]), true),
            (process(990, &[990]), true),
            (process(1000, &[1000, 77]), true),
            (process(1000, &[1000, 990, 0]), false),
            (process(77, &[]), false),
            (Process::default(), false),
        ] {
            assert_eq!(admitted.admits(&process), is, "{process:?}");
        }
        assert!(admitted.way_in("anna").contains("`usermod -aG evenkeel anna`"));
        let without = Admitted { gid: None, ..admitted };
        assert!(without.admits(&process(0, &[])) && !without.admits(&process(1000, &[1000, 77])));
        assert!(without.way_in("anna").contains("(`groupadd evenkeel`), restart evenkeeld"));
    }

    #[test]
    fn names_and_numbers_are_read_as_the_files_have_them() {
        let text = "root:x:0:\nevenkeel:x:77:anna,bert\nbroken\n# no\nodd:x:many:\n";
        assert_eq!(number_in(text, "evenkeel"), Some(77));
        assert_eq!((number_in(text, "odd"), number_in(text, "anna")), (None, None));
        assert_eq!((name(text, 0), name(text, 5)), (Some("root".to_owned()), None));
    }
}
