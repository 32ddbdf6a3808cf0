//! The handshake: hello, the login if there is one, and the broker's welcome. A broker that does not prove that it holds the
//! user's credentials is not a broker of the cluster, and is not talked to.

use std::io;

use bellwether_protocol::FrameCodec;
use bellwether_protocol::client::{
    BrokerFrame, ClientFrame, EXTERNAL, Hello, LoginData, LoginStart, VERSIONS, Welcome,
};
use bellwether_protocol::codec::CodecError;
use bellwether_protocol::frame::{Frame, Limits};
use bellwether_protocol::scram::{self, ClientFirst, Expected};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::Decoder;

use super::connect::{ConnectFailure, failed};
use crate::builder::Config;
use crate::login::{Login, PasswordLogin};

/// Longest frame accepted before the broker's own limit is known, in bytes: a welcome with its addresses.
const WELCOME_BYTES_MAX: usize = 64 * 1024;

/// Shakes hands over a stream that is connected to `address`; gives what came behind the welcome, too.
pub(super) async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    address: &str,
    stream: &mut S,
    config: &Config,
) -> Result<(BytesMut, Welcome), ConnectFailure> {
    let mut shaking = Shaking {
        address,
        stream,
        codec: FrameCodec::new(Limits { frame_bytes_max: WELCOME_BYTES_MAX }),
        arrived: BytesMut::new(),
    };
    let welcome = shaking.shake(config).await?;
    Ok((shaking.arrived, welcome))
}

struct Shaking<'a, S> {
    address: &'a str,
    stream: &'a mut S,
    codec: FrameCodec<BrokerFrame>,
    arrived: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Shaking<'_, S> {
    async fn shake(&mut self, config: &Config) -> Result<Welcome, ConnectFailure> {
        let scram = match &config.login {
            Some(Login::Password(login)) => {
                Some((ClientFirst::new(login.user(), rand::random()), login))
            }
            Some(Login::Certificate) | None => None,
        };
        let login = match (&config.login, &scram) {
            (_, Some((first, _))) => Some((scram::MECHANISM, LoginData::from(first.message()))),
            // Empty: the user is the one that the certificate names.
            (Some(Login::Certificate), _) => Some((EXTERNAL, LoginData::from(String::new()))),
            (_, None) => None,
        };
        let hello = ClientFrame::Hello(Hello {
            version_min: *VERSIONS.start(),
            version_max: *VERSIONS.end(),
            client_name: config.name.clone(),
            heartbeat_ms: u32::try_from(config.heartbeat.as_millis()).unwrap_or(u32::MAX),
            virtual_host: config.virtual_host.clone(),
            login: login.map(|(mechanism, initial_response)| LoginStart {
                mechanism: mechanism.to_owned(),
                initial_response,
            }),
        });
        self.send(&hello).await?;
        let expected = match scram {
            Some((first, login)) => Some(self.log_in(first, login).await?),
            None => None,
        };
        let welcome = match self.next().await? {
            BrokerFrame::Welcome(welcome) => welcome,
            _ => return Err(self.strange("it spoke before its welcome")),
        };
        if !VERSIONS.contains(&welcome.version) {
            return Err(self.strange(&format!("it chose version {}", welcome.version)));
        }
        if let Some(expected) = expected {
            self.check(&expected, welcome.proof.as_ref())?;
        }
        Ok(welcome)
    }

    async fn log_in(
        &mut self,
        first: ClientFirst,
        login: &PasswordLogin,
    ) -> Result<Expected, ConnectFailure> {
        let BrokerFrame::Challenge(challenge) = self.next().await? else {
            return Err(self.strange("it did not ask for the proof of the password"));
        };
        let challenge =
            first.challenged(&challenge.0).map_err(|error| self.strange(&error.to_string()))?;
        let salted = login
            .salted(&challenge.salt, challenge.iterations)
            .await
            .map_err(|why| self.strange(&why))?;
        let (answer, expected) = challenge.answer(&salted);
        self.send(&ClientFrame::Authenticate(answer.into())).await?;
        Ok(expected)
    }

    // Without this, whoever stands in the broker's place would get the client's messages.
    fn check(&self, expected: &Expected, proof: Option<&LoginData>) -> Result<(), ConnectFailure> {
        let proved = proof.is_some_and(|proof| expected.check(&proof.0).is_ok());
        match proved {
            true => Ok(()),
            false => Err(self.strange("it did not prove that it holds the user's credentials")),
        }
    }

    async fn send(&mut self, frame: &ClientFrame) -> Result<(), ConnectFailure> {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        let sent = match self.stream.write_all(&bytes).await {
            Ok(()) => self.stream.flush().await,
            failed => failed,
        };
        sent.map_err(|error| self.socket(error))
    }

    /// The next frame, if it is not a goodbye.
    async fn next(&mut self) -> Result<BrokerFrame, ConnectFailure> {
        loop {
            let decoded = self.codec.decode(&mut self.arrived);
            match decoded.map_err(|error: CodecError| self.unreadable(&error))? {
                Some(BrokerFrame::Goodbye(error)) => {
                    let address = self.address.to_owned();
                    return Err(ConnectFailure::Refused { address, error });
                }
                Some(frame) => return Ok(frame),
                None => {}
            }
            let read = self.stream.read_buf(&mut self.arrived).await;
            if read.map_err(|error| self.socket(error))? == 0 {
                return Err(self.socket(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// What arrived is no frame. Mostly another port was dialed than that of clients.
    fn unreadable(&self, error: &CodecError) -> ConnectFailure {
        match self.arrived.get(..4) {
            Some(b"HTTP") => self
                .strange("it answers in HTTP: that is a port for metrics, or of another service"),
            _ => self.strange(&error.to_string()),
        }
    }

    fn strange(&self, why: &str) -> ConnectFailure {
        ConnectFailure::Protocol { address: self.address.to_owned(), why: why.to_owned() }
    }

    fn socket(&self, error: io::Error) -> ConnectFailure {
        failed(self.address, error)
    }
}
