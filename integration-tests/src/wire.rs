//! A bare connection to one broker, which shows every frame that the broker writes: the client crate would hide what a deposed
//! leader still says.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bellwether_protocol::FrameCodec;
use bellwether_protocol::client::{BrokerFrame, ClientFrame, Hello, Request, VERSIONS};
use bellwether_protocol::frame::Limits;
use bellwether_protocol::ids::{Offset, OffsetRange, RequestId};
use bellwether_protocol::names::VirtualHost;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

/// Longest frame that is accepted: more than any test sends.
const LIMITS: Limits = Limits { frame_bytes_max: 1024 * 1024 };
/// Longest that an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The connection, past its handshake.
#[derive(Debug)]
pub struct Wire {
    framed: Framed<TcpStream, FrameCodec<BrokerFrame>>,
    requests: u64,
}

impl Wire {
    /// Connects and shakes hands. It sends no heartbeats, which brokers forgive for twice their interval.
    pub async fn connect(address: &str) -> Result<Wire> {
        let stream = TcpStream::connect(address).await?;
        let mut wire = Wire { framed: Framed::new(stream, FrameCodec::new(LIMITS)), requests: 0 };
        wire.send(ClientFrame::Hello(Hello {
            version_min: *VERSIONS.start(),
            version_max: *VERSIONS.end(),
            client_name: "wire".to_owned(),
            heartbeat_ms: 0,
            virtual_host: VirtualHost::default(),
            login: None,
        }))
        .await?;
        match wire.next(ANSWER_WITHIN).await? {
            Some(BrokerFrame::Welcome(_)) => Ok(wire),
            other => bail!("no welcome but {other:?}"),
        }
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: ClientFrame) -> Result<()> {
        Ok(self.framed.send(frame).await?)
    }

    /// Sends a request and waits for its answer; what comes before the answer is returned too.
    pub async fn ask(&mut self, request: Request) -> Result<Vec<BrokerFrame>> {
        self.requests += 1;
        let asked = RequestId(self.requests);
        self.send(ClientFrame::Request { id: asked, request }).await?;
        let mut before = Vec::new();
        loop {
            match self.next(ANSWER_WITHIN).await?.context("the broker closed the connection")? {
                BrokerFrame::Response { id, .. } if id == asked => return Ok(before),
                BrokerFrame::Failure { id, error } if id == asked => bail!("refused: {error:?}"),
                other => before.push(other),
            }
        }
    }

    /// Everything that arrives until nothing has for `quiet`, or the connection is closed. Heartbeats are left out.
    pub async fn until_quiet(&mut self, quiet: Duration) -> Vec<BrokerFrame> {
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = self.next(quiet).await {
            if frame != BrokerFrame::Heartbeat {
                frames.push(frame);
            }
        }
        frames
    }

    /// Everything that arrives until `enough` says of it that it is. Heartbeats are left out.
    pub async fn until(
        &mut self,
        patience: Duration,
        enough: impl Fn(&[BrokerFrame]) -> bool,
    ) -> Result<Vec<BrokerFrame>> {
        let (begun, mut frames) = (tokio::time::Instant::now(), Vec::new());
        while !enough(&frames) {
            let left = patience.saturating_sub(begun.elapsed());
            let frame = self.next(left).await.with_context(|| format!("after {frames:?}"))?;
            let frame = frame.with_context(|| format!("closed after {frames:?}"))?;
            if frame != BrokerFrame::Heartbeat {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    /// The next frame; none when the connection was closed.
    async fn next(&mut self, within: Duration) -> Result<Option<BrokerFrame>> {
        let arrived =
            tokio::time::timeout(within, self.framed.next()).await.context("nothing arrived")?;
        Ok(arrived.transpose()?)
    }
}

/// What was delivered in these frames.
#[must_use]
pub fn delivered(frames: &[BrokerFrame]) -> Vec<OffsetRange> {
    let mut ranges = Vec::new();
    for frame in frames {
        if let BrokerFrame::Deliver(deliver) = frame {
            for run in &deliver.runs {
                ranges.push(OffsetRange::new(
                    run.first,
                    Offset(run.first.0 + run.messages.count() as u64),
                ));
            }
        }
    }
    ranges
}
