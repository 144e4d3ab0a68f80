//! Joining: tokens that are used, over, of another CA or for another host; and what else may be said there.

use std::net::{IpAddr, SocketAddr};

use agent::net::join;
use anyhow::{Context, bail, ensure};
use decide::units::HostId;
use lab::hosts::CLIENT;
use rustls::version::TLS13;
use std::time::Duration;
use trust::authority::Authority;
use trust::join::Token;
use trust::keys::Keys;
use trust::request::{self, Wanted};
use trust::tls;

use super::bed::Bed;
use super::stranger::{now, said, shaken};

pub(super) async fn run(bed: &mut Bed) -> anyhow::Result<()> {
    tokens(bed).await?;
    places(bed).await?;
    nonsense(bed).await
}

async fn tokens(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("join: a token used twice", async |bed| {
        let token = offered(bed, &[])?;
        attempt(bed, &token, HostId(81), bed.agent(0))?.context("its first use")?;
        let why = refused(bed, &token, HostId(82))?;
        ensure!(why.contains("unknown, used or over"), "{why}");
        Ok(why)
    })
    .await?;
    bed.case("join: a token that is over", async |bed| {
        let token = offered(bed, &["--minutes", "0"])?;
        let why = refused(bed, &token, HostId(83))?;
        ensure!(why.contains("unknown, used or over"), "{why}");
        Ok(why)
    })
    .await?;
    bed.case("join: a guessed token", async |bed| {
        let (token, other) = (offered(bed, &[])?.to_string(), offered(bed, &[])?.to_string());
        // The id of the one, the secret of the other.
        let (one, two): (Vec<&str>, Vec<&str>) =
            (token.split('_').collect(), other.split('_').collect());
        let guessed: Token = [one[0], one[1], two[2], one[3]].join("_").parse()?;
        let why = refused(bed, &guessed, HostId(84))?;
        ensure!(why.contains("unknown, used or over"), "{why}");
        Ok(why)
    })
    .await?;
    bed.case("join: a token for another address", async |bed| {
        let token = offered(bed, &["--address", "198.18.0.77"])?;
        let why = refused(bed, &token, HostId(85))?;
        ensure!(why.contains("the token is for 198.18.0.77"), "{why}");
        Ok(why)
    })
    .await
}

async fn places(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("join: in the place of a host that is there", async |bed| {
        let token = offered(bed, &[])?;
        let host = Keys::load(&bed.keys(1))?.held().identity.host;
        let why = refused(bed, &token, host)?;
        ensure!(why.contains("has a certificate already"), "{why}");
        Ok(why)
    })
    .await?;
    bed.case("join: at a host of another cluster, in the middle", async |bed| {
        // The new host holds a token of another CA than the one that answers.
        let ca = bed.folder("ca")?;
        let token = Authority::init(&ca, "lab", None, now())?.offer(
            Duration::from_secs(600),
            None,
            now(),
        )?;
        let why = refused(bed, &token, HostId(86))?;
        ensure!(why.contains("of another CA"), "{why}");
        Ok(why)
    })
    .await?;
    bed.case("join: at a host that has not the CA's key", async |bed| {
        let token = offered(bed, &[])?;
        match attempt(bed, &token, HostId(87), bed.agent(1))? {
            Ok(()) => bail!("it was let in"),
            Err(why) => Ok(format!("{why:#}")),
        }
    })
    .await
}

async fn nonsense(bed: &mut Bed) -> anyhow::Result<()> {
    for (name, bytes) in [
        (
            "join: garbage in the place of a token",
            b"{\"token\": \"../../etc/shadow\", \"request\": \"\"}".to_vec(),
        ),
        (
            "join: a gRPC call on a connection that shows no certificate",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        ),
        ("join: endless bytes", vec![b'{'; 4 << 20]),
    ] {
        bed.case(name, async |bed| {
            let (to, roots, after) = (bed.agent(0), bed.roots()?, bed.newest(0).await?);
            let heard = bed.outside(async || {
                let mut stream = shaken(to, roots, &TLS13, tls::JOIN).await?;
                let said = async {
                    let heard = said(&mut stream, &bytes);
                    heard.await
                };
                said.await
            })?;
            let text = String::from_utf8_lossy(&heard);
            ensure!(!text.contains("grant"), "{text}");
            bed.told(0, after, &["a new host"]).await
        })
        .await?;
    }
    Ok(())
}

fn offered(bed: &Bed, more: &[&str]) -> anyhow::Result<Token> {
    bed.ran(0, &[&["ca", "token"], more].concat())?.trim().parse()
}

/// Tries to join as this host, from the client's address.
fn attempt(
    bed: &Bed,
    token: &Token,
    host: HostId,
    to: SocketAddr,
) -> anyhow::Result<anyhow::Result<()>> {
    let folder = bed.folder("joining")?;
    let wanted = Wanted { host, name: "mallory".to_owned(), addresses: vec![IpAddr::V4(CLIENT)] };
    let request = request::make(&folder, &wanted)?;
    Ok(bed.outside(async || join(IpAddr::V4(CLIENT), to, token, &request).await.map(drop)))
}

fn refused(bed: &Bed, token: &Token, host: HostId) -> anyhow::Result<String> {
    match attempt(bed, token, host, bed.agent(0))? {
        Ok(()) => bail!("it was let in"),
        Err(why) => Ok(format!("{why:#}")),
    }
}
