//! The HTTP API: over TCP without a token that holds or may, over the unix socket as somebody else, and nonsense on both.

use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::{panic, thread};

use anyhow::{Context, ensure};
use rustix::process::{Gid, Uid};
use rustix::thread::{
    LinkNameSpaceType, UnshareFlags, move_into_link_name_space, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use rustls::version::TLS13;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::bed::{API, Bed, VM};
use super::stranger::{said, shaken};

const SOCKET: &str = "/run/evenkeel/api.sock";
/// Every route that changes something, with the lowest role that may.
const CHANGING: [(&str, &str); 10] = [
    ("/v1/moves", "operator"),
    ("/v1/moves/x/cancel", "operator"),
    ("/v1/plan/apply", "operator"),
    ("/v1/drain", "operator"),
    ("/v1/vms/payroll-hr/exclude", "operator"),
    ("/v1/vms/payroll-hr/include", "operator"),
    ("/v1/balancer", "admin"),
    ("/v1/moves/x/resolve", "admin"),
    ("/v1/tokens", "the socket"),
    ("/v1/tokens/x/revoke", "the socket"),
];

pub(super) async fn run(bed: &mut Bed) -> anyhow::Result<()> {
    roles(bed).await?;
    nonsense(bed).await?;
    others(bed).await
}

async fn roles(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("API: every changing route with a viewer's token", async |bed| {
        let token = bed.tokens.viewer.clone();
        each(bed, &token, 403, |_| true).await
    })
    .await?;
    bed.case("API: what only an admin may, with an operator's token", async |bed| {
        let token = bed.tokens.operator.clone();
        each(bed, &token, 403, |role| role != "operator").await
    })
    .await?;
    bed.case("API: a forced move with an operator's token", async |bed| {
        let token = bed.tokens.operator.clone();
        let body = format!("{{\"vm\": \"{VM}\", \"to\": \"host2\", \"force\": true}}");
        let (status, text) = asked(bed, "POST", "/v1/moves", &token, &body).await?;
        ensure!(status == 403, "{status}: {text}");
        Ok(text)
    })
    .await
}

async fn nonsense(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("API: paths that climb out", async |bed| {
        let token = bed.tokens.viewer.clone();
        let mut seen = String::new();
        for path in [
            "/v1/../../../../etc/shadow",
            "/v1/vms/..%2f..%2f..%2fetc%2fshadow/history",
            "/v1/why/%2e%2e%2f%2e%2e%2fetc%2fshadow",
            "//etc/shadow",
            "/v1/moves/%00",
        ] {
            let (status, text) = asked(bed, "GET", path, &token, "").await?;
            ensure!(
                (400..500).contains(&status) && !text.contains("root:"),
                "{path}: {status} {text}"
            );
            seen += &format!("{status} ");
        }
        Ok(seen)
    })
    .await?;
    bed.case("API: a body and a head that are far too long", async |bed| {
        let token = bed.tokens.operator.clone();
        let (status, _) = asked(bed, "POST", "/v1/moves", &token, &"x".repeat(1 << 20)).await?;
        ensure!((400..500).contains(&status), "body: {status}");
        let (head, _) =
            asked(bed, "GET", &format!("/v1/{}", "y".repeat(1 << 17)), &token, "").await?;
        ensure!((400..500).contains(&head) || head == 0, "head: {head}");
        Ok(format!("{status} and {head}"))
    })
    .await?;
    bed.case("API: slow-loris", async |bed| {
        let (to, roots) = (address(bed), bed.roots()?);
        let took = bed.outside(async || {
            let began = Instant::now();
            let mut silent = TcpStream::connect(to).await?;
            said(&mut silent, b"").await?;
            let mut half = shaken(to, roots, &TLS13, b"http/1.1").await?;
            half.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n").await?;
            said(&mut half, b"X-Slow: 1\r\n").await?;
            Ok(began.elapsed())
        })?;
        Ok(format!("both were closed within {:.1} s", took.as_secs_f64()))
    })
    .await
}

async fn others(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("API: another user at the unix socket", async |bed| {
        let socket = bed.cluster.host(0).path(SOCKET);
        // As if its mode had been changed by mistake.
        for (path, mode) in
            [(socket.as_path(), 0o777), (socket.parent().context("a folder")?, 0o755)]
        {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        }
        let heard = as_nobody(bed)?;
        ensure!(heard.contains(" 403 "), "{heard}");
        Ok(heard.lines().next().unwrap_or_default().to_owned())
    })
    .await?;
    // Last, since nothing more is looked at from that address for a minute once there were ten wrong tokens.
    bed.case("API: every changing route without a token", async |bed| {
        each(bed, "", 401, |_| true).await
    })
    .await?;
    bed.case("API: every changing route with a token that is over", async |bed| {
        let token = bed.tokens.over.clone();
        each(bed, &token, 401, |_| true).await
    })
    .await?;
    bed.case("API: every changing route with a token that was revoked", async |bed| {
        let token = bed.tokens.revoked.clone();
        each(bed, &token, 401, |_| true).await
    })
    .await?;
    bed.case("API: guessing tokens", async |bed| {
        let mut statuses = Vec::new();
        for number in 0..30 {
            let guess = format!("evk_{number:08x}_{}", "0".repeat(64));
            statuses.push(asked(bed, "GET", "/v1/status", &guess, "").await?.0);
        }
        ensure!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
        let held = statuses.iter().filter(|status| **status == 429).count();
        ensure!(held > 0, "nothing was held back: {statuses:?}");
        Ok(format!("{held} of 30 were not even looked at"))
    })
    .await
}

fn address(bed: &Bed) -> SocketAddr {
    (bed.cluster.host(0).address(), API).into()
}

/// Asks all of them, and wants this status.
async fn each(
    bed: &Bed,
    token: &str,
    wanted: u16,
    which: impl Fn(&str) -> bool,
) -> anyhow::Result<String> {
    let mut count = 0;
    for (path, role) in CHANGING {
        if !which(role) {
            continue;
        }
        let (status, text) = asked(bed, "POST", path, token, "{}").await?;
        // Once there were too many wrong tokens, they are not looked at any more.
        ensure!(status == wanted || (wanted == 401 && status == 429), "{path}: {status} {text}");
        count += 1;
    }
    Ok(format!("{count} routes, status {wanted}"))
}

/// One request from outside: its status (0: hung up) and what came.
async fn asked(
    bed: &Bed,
    method: &str,
    path: &str,
    token: &str,
    body: &str,
) -> anyhow::Result<(u16, String)> {
    let (to, roots) = (address(bed), bed.roots()?);
    let bearer =
        if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\n{bearer}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let heard = bed.outside(async || {
        let mut stream = shaken(to, roots, &TLS13, b"http/1.1").await?;
        said(&mut stream, request.as_bytes()).await
    })?;
    let text = String::from_utf8_lossy(&heard).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, text))
}

/// What the first host's socket answers to a user who is nobody. On Linux a thread may be another user than its process.
fn as_nobody(bed: &Bed) -> anyhow::Result<String> {
    let mounts = format!("/proc/{}/ns/mnt", bed.cluster.host(0).namespace().pid());
    let mounts = File::open(&mounts).with_context(|| format!("opening {mounts}"))?;
    let ask = || -> anyhow::Result<String> {
        own_root().context("a root folder of its own")?;
        move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))
            .context("entering a host")?;
        set_thread_groups(&[]).context("no groups")?;
        let nobody = 65_534;
        let gid = Gid::from_raw(nobody);
        set_thread_res_gid(gid, gid, gid).context("another group")?;
        let uid = Uid::from_raw(nobody);
        set_thread_res_uid(uid, uid, uid).context("another user")?;
        let mut stream = UnixStream::connect(SOCKET)?;
        let body = format!("{{\"vm\": \"{VM}\"}}");
        write!(
            stream,
            "POST /v1/moves HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard)?;
        Ok(heard)
    };
    thread::scope(|scope| {
        scope.spawn(ask).join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    })
}

/// Gives this thread a root folder of its own, which entering another host's mounts asks for.
#[expect(
    deprecated,
    reason = "only a thread's root and working folder are parted, and no file descriptors"
)]
fn own_root() -> rustix::io::Result<()> {
    rustix::thread::unshare(UnshareFlags::FS)
}
