//! What attackers have: a place in the network that is no host's, keys that are not theirs, and plain sockets.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent::clock::unix_seconds;
use agent::net::{Authentication, Heard, Net, NetSettings, RequestMode, To};
use anyhow::{Context, bail, ensure};
use decide::units::HostId;
use decide::wire::message::Message;
use lab::hosts::CLIENT;
use rustls::client::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trust::authority::Authority;
use trust::identity::Unix;
use trust::keys::Keys;
use trust::request::{self, Wanted};
use trust::window::Life;

use super::bed::{Bed, PORT};

/// Far longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// A host that nobody knows.
pub(super) const MALLORY: HostId = HostId(0x6d61_6c6c_6f72_7900_6d61_6c6c_6f72_7900);

pub(super) fn now() -> Unix {
    Unix(u64::from(unix_seconds()))
}

impl Bed {
    /// Runs this in the network of the client, on a thread of its own.
    pub(super) fn outside<T: Send>(
        &self,
        attack: impl AsyncFnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        self.cluster.network.client().inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(attack())
        })?
    }

    /// Where the agent of a host listens to others.
    pub(super) fn agent(&self, host: usize) -> SocketAddr {
        (self.cluster.host(host).address(), PORT).into()
    }

    /// The same, and who is to answer there.
    pub(super) fn to(&self, host: usize) -> anyhow::Result<To> {
        let id = Keys::load(&self.keys(host))?.held().identity.host;
        Ok(To { host: id, at: self.agent(host) })
    }

    /// Keys for this host id at the client's address, signed by that CA at that time.
    pub(super) fn signed(&self, ca: &Path, host: HostId, then: Unix) -> anyhow::Result<PathBuf> {
        let folder = self.folder("keys")?;
        let wanted =
            Wanted { host, name: "mallory".to_owned(), addresses: vec![IpAddr::V4(CLIENT)] };
        let request = request::make(&folder, &wanted)?;
        let (grant, _) = Authority::open(ca, None)?.sign(&request, trust::authority::LIFE, then)?;
        grant.install(&folder, now())?;
        Ok(folder)
    }

    /// Keys of another cluster, whose CA has the same name.
    pub(super) fn of_another_ca(&self, host: HostId) -> anyhow::Result<PathBuf> {
        let ca = self.folder("ca")?;
        Authority::init(&ca, "lab", None, now())?;
        self.signed(&ca, host, now())
    }

    /// A copy of a host's keys: they were stolen.
    pub(super) fn stolen(&self, host: usize) -> anyhow::Result<PathBuf> {
        let folder = self.folder("stolen")?;
        for entry in std::fs::read_dir(self.keys(host))? {
            let entry = entry?;
            std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
        Ok(folder)
    }

    /// Sends this, as an agent with those keys; gives why it was not taken.
    pub(super) fn sent(&self, keys: &Path, to: usize, message: Message) -> anyhow::Result<String> {
        let (to, heard) = (self.to(to)?, self.folder("heard")?.join("heard.json"));
        self.outside(async || {
            let mut agent = Mallory::start(keys, heard).await?;
            agent.net.send(to, message);
            let why = agent.undelivered().await;
            agent.net.stop().await;
            why
        })
    }

    /// The CA's certificate, which is no secret.
    pub(super) fn roots(&self) -> anyhow::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let text = std::fs::read(self.keys(0).join("ca.crt"))?;
        roots.add(CertificateDer::from_pem_slice(&text)?)?;
        Ok(roots)
    }
}

/// An agent that is no host of the cluster's.
pub(super) struct Mallory {
    pub(super) net: Net,
    heard: mpsc::Receiver<Heard>,
}

impl Mallory {
    pub(super) async fn start(keys: &Path, heard: PathBuf) -> anyhow::Result<Mallory> {
        let authentication = Authentication::Keys {
            keys: Arc::new(Keys::load(keys)?),
            life: Life { incarnation: unix_seconds(), lot: 7 },
            heard,
        };
        let settings = NetSettings {
            address: IpAddr::V4(CLIENT),
            port: PORT,
            request: RequestMode::FanOut,
            multicast_ttl: 1,
            authentication,
            authority: PathBuf::from("/nowhere"),
        };
        let (sender, heard) = mpsc::channel(256);
        Ok(Mallory { net: Net::start(settings, sender).await?, heard })
    }

    /// Why what was sent did not arrive.
    pub(super) async fn undelivered(&mut self) -> anyhow::Result<String> {
        let heard = async {
            loop {
                if let Heard::Undelivered { why, .. } =
                    self.heard.recv().await.context("it ended")?
                {
                    return anyhow::Ok(why);
                }
            }
        };
        match timeout(Duration::from_secs(5), heard).await {
            Ok(why) => why,
            Err(_late) => bail!("it was taken"),
        }
    }
}

/// TLS with no certificate, as far as it comes.
pub(super) async fn shaken(
    to: SocketAddr,
    roots: RootCertStore,
    version: &'static SupportedProtocolVersion,
    speaks: &[u8],
) -> anyhow::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![speaks.to_vec()];
    config.enable_sni = false;
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::IpAddress(to.ip().into());
    let connector = TlsConnector::from(Arc::new(config));
    Ok(timeout(PATIENCE, connector.connect(name, stream)).await??)
}

/// Says this and reads until the other side hangs up; gives what came.
pub(super) async fn said(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    bytes: &[u8],
) -> anyhow::Result<Vec<u8>> {
    // Whoever hangs up in the middle has answered too.
    let _ = stream.write_all(bytes).await;
    let mut heard = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut heard)).await;
    let _ = read.context("the connection was not closed")?;
    Ok(heard)
}

/// Sends datagrams from the client's address.
pub(super) fn datagrams(bed: &Bed, to: SocketAddr, all: &[Vec<u8>]) -> anyhow::Result<()> {
    ensure!(!all.is_empty(), "nothing to send");
    bed.cluster.network.client().inside(|| -> anyhow::Result<()> {
        let socket = UdpSocket::bind((CLIENT, 0))?;
        for datagram in all {
            socket.send_to(datagram, to)?;
        }
        Ok(())
    })?
}
