//! The first frames of a peer connection: who is speaking, to which cluster it belongs, in which version.

use std::time::Duration;

use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::BrokerLife;
use bellwether_protocol::peer::{PeerFrame, PeerHello, VERSIONS};
use bellwether_protocol::{CodecError, Frame, FrameCodec, Limits, negotiate};
use bellwether_tls::BrokerName;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::Decoder;

/// How long the hellos may take, all of them together. Says nothing about the peer when it passes: it may be frozen, or slow.
pub(super) const HELLO_WAIT: Duration = Duration::from_secs(3);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetError {
    /// This side refuses.
    #[error("refused: {}", .0.message)]
    Refused(ErrorBody),
    /// The other side said goodbye.
    #[error("the peer refused: {}", .0.message)]
    Goodbye(ErrorBody),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("the peer closed the connection before it had said hello")]
    Ended,
    #[error("no hello within {} s", HELLO_WAIT.as_secs())]
    Silent,
}

/// A connection read frame by frame.
pub(super) struct Framed<S> {
    pub stream: S,
    pub arrived: BytesMut,
    pub codec: FrameCodec<PeerFrame>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Framed<S> {
    pub fn new(stream: S) -> Framed<S> {
        Framed { stream, arrived: BytesMut::new(), codec: FrameCodec::new(Limits::HANDSHAKE) }
    }

    /// The next frame; `None`: the peer has closed.
    pub async fn read(&mut self) -> Result<Option<PeerFrame>, CodecError> {
        loop {
            if let Some(frame) = self.codec.decode(&mut self.arrived)? {
                return Ok(Some(frame));
            }
            if self.stream.read_buf(&mut self.arrived).await? == 0 {
                return Ok(None);
            }
        }
    }

    pub async fn write(&mut self, frame: &PeerFrame) -> Result<(), std::io::Error> {
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        self.stream.write_all(&out).await?;
        self.stream.flush().await
    }
}

/// Says hello to whoever was dialed; returns its hello. `named` is whom its certificate names, where there is one.
pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    framed: &mut Framed<S>,
    mine: &PeerHello,
    named: Option<BrokerName>,
) -> Result<PeerHello, GreetError> {
    let greeting = async {
        framed.write(&PeerFrame::Hello(mine.clone())).await.map_err(CodecError::from)?;
        let theirs = hello_of(framed.read().await?)?;
        framed.codec.set_limits(Limits::PEER);
        check(&theirs, mine, named).map_err(GreetError::Refused)?;
        Ok(theirs)
    };
    tokio::time::timeout(HELLO_WAIT, greeting).await.unwrap_or(Err(GreetError::Silent))
}

/// Hears who has dialed, and answers.
pub(super) async fn welcome<S: AsyncRead + AsyncWrite + Unpin>(
    framed: &mut Framed<S>,
    mine: &PeerHello,
    named: Option<BrokerName>,
) -> Result<PeerHello, GreetError> {
    let greeting = async {
        let heard = framed.read().await.map_err(GreetError::from).and_then(hello_of);
        let theirs = heard.and_then(|theirs| {
            check(&theirs, mine, named).map_err(GreetError::Refused)?;
            Ok(theirs)
        });
        match theirs {
            Ok(theirs) => {
                let answer = PeerHello { purpose: theirs.purpose, ..mine.clone() };
                framed.write(&PeerFrame::Hello(answer)).await.map_err(CodecError::from)?;
                framed.codec.set_limits(Limits::PEER);
                Ok(theirs)
            }
            Err(error) => {
                say_why(framed, &error).await;
                Err(error)
            }
        }
    };
    tokio::time::timeout(HELLO_WAIT, greeting).await.unwrap_or(Err(GreetError::Silent))
}

/// A refusal is told to whoever dialed, as far as the connection still carries it.
async fn say_why<S: AsyncRead + AsyncWrite + Unpin>(framed: &mut Framed<S>, error: &GreetError) {
    let goodbye = match error {
        GreetError::Refused(error) => error.clone(),
        GreetError::Codec(CodecError::Frame(error)) => ErrorBody::from(error),
        GreetError::Codec(CodecError::Io(_))
        | GreetError::Goodbye(_)
        | GreetError::Ended
        | GreetError::Silent => return,
    };
    if let Err(error) = framed.write(&PeerFrame::Goodbye(goodbye)).await {
        tracing::debug!(%error, "a refused peer did not wait for the reason");
    }
}

fn hello_of(frame: Option<PeerFrame>) -> Result<PeerHello, GreetError> {
    match frame {
        Some(PeerFrame::Hello(hello)) => Ok(hello),
        Some(PeerFrame::Goodbye(error)) => Err(GreetError::Goodbye(error)),
        Some(_) => Err(GreetError::Refused(ErrorBody::not_done(
            ErrorCode::UnexpectedFrame,
            "the first frame between brokers is a hello",
        ))),
        None => Err(GreetError::Ended),
    }
}

/// `named` is whom the peer's certificate names, where brokers speak TLS: the hello has to say the same.
fn check(theirs: &PeerHello, mine: &PeerHello, named: Option<BrokerName>) -> Result<(), ErrorBody> {
    negotiate(theirs.version_min..=theirs.version_max, VERSIONS)?;
    if let Some(named) = named
        && (named.broker, named.cluster) != (theirs.life.broker.0, theirs.cluster.0)
    {
        return Err(ErrorBody::not_done(
            ErrorCode::WrongCertificate,
            format!(
                "whoever speaks says that it is broker {} of cluster {}, and its certificate is for {named}: give that broker a certificate of its own",
                theirs.life.broker, theirs.cluster,
            ),
        ));
    }
    if theirs.cluster != mine.cluster {
        return Err(ErrorBody::not_done(
            ErrorCode::NotAllowed,
            // Where brokers speak no TLS, whoever knows the cluster's id is taken for a broker: who does not is not told.
            format!(
                "broker {} says that it belongs to cluster {}, and broker {} belongs to another: one of them was given the wrong coordinator, data folder or peer address; \
                 `bellwether cluster status --json` shows the id of a cluster",
                theirs.life.broker, theirs.cluster, mine.life.broker,
            ),
        ));
    }
    if theirs.life.broker == mine.life.broker {
        return Err(ErrorBody::not_done(
            ErrorCode::NotAllowed,
            format!(
                "both ends say that they are broker {}: two brokers have the same id, or an advertised peer address is wrong",
                mine.life.broker
            ),
        ));
    }
    Ok(())
}

/// What this broker says of itself.
pub(super) fn hello(
    me: &super::Me,
    config: &super::PeersConfig,
    purpose: bellwether_protocol::peer::Purpose,
) -> PeerHello {
    PeerHello {
        version_min: *VERSIONS.start(),
        version_max: *VERSIONS.end(),
        cluster: config.cluster,
        life: me.life,
        store: config.store,
        purpose,
        ready: me.ready,
        promise_ms: u32::try_from(config.promise.as_millis()).unwrap_or(u32::MAX),
    }
}

/// Whether two lives are of one broker, the second not the first.
pub(super) fn is_a_later_life(first: BrokerLife, second: BrokerLife) -> bool {
    first.broker == second.broker && first.incarnation != second.incarnation
}
