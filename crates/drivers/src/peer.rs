//! Whoever is at the other end of a unix socket, by the kernel's word.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Since Linux 4.13.
const SO_PEERGROUPS: libc::c_int = 59;
/// Linux lets nobody be in more groups (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

/// The supplementary groups that whoever is at the other end of a connected unix socket was in when it connected.
///
/// # Errors
/// As the kernel says: the socket is no unix socket, or not connected.
pub fn groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut room = 64;
    loop {
        match read(socket, room) {
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && room < GROUPS_MAX => {
                room = GROUPS_MAX;
            }
            read => return read,
        }
    }
}

fn read(socket: &impl AsFd, room: usize) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; room];
    let bytes = room * size_of::<u32>();
    let mut length = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: the socket is open as long as it is borrowed, and the kernel writes at most `length` bytes to `groups`, which has
    // as many; any bits are a valid `u32`.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(usize::try_from(length).map_err(io::Error::other)? / size_of::<u32>());
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_other_end_is_in_the_groups_that_this_process_is_in() {
        let (here, _there) = UnixStream::pair().unwrap();
        let mut own: Vec<u32> =
            rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        let mut found = groups(&here).unwrap();
        own.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, own);
    }

    #[test]
    fn a_socket_of_another_kind_has_no_such_groups() {
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(groups(&other).is_err());
    }
}
