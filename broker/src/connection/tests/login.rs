//! Logging in, and what a user may do while the connection lives.

use std::net::{IpAddr, Ipv4Addr};

use bellwether_coordinator::users::{UserChange, apply};
use bellwether_protocol::client::{
    BrokerFrame, EXTERNAL, LoginData, LoginStart, PLAIN, Permissions, UserTag, Welcome,
};
use bellwether_protocol::names::UserName;
use bellwether_protocol::scram::{self, ClientFirst, Credentials, Password, SaltedPassword};
use bellwether_tls::{CertificateIdentity, IdentitySource};

use super::*;

const SALT: [u8; scram::RANDOM_BYTES] = [7; scram::RANDOM_BYTES];

/// Few iterations: in tests nobody guesses.
fn salted(password: &str) -> SaltedPassword {
    Password::new(password).unwrap().salted(&SALT, scram::ITERATIONS_MIN).unwrap()
}

fn credentials(password: &str) -> Credentials {
    Credentials::of(&salted(password), SALT.to_vec(), scram::ITERATIONS_MIN)
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn permissions(configure: &str, write: &str, read: &str) -> Permissions {
    let of = |pattern: &str| pattern.to_owned();
    Permissions { configure: of(configure), write: of(write), read: of(read) }
}

/// Over loopback.
fn near() -> Origin {
    Origin::plain(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Over a network, without TLS.
fn far() -> Origin {
    Origin::plain(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)))
}

impl World {
    /// A login is required, and there is `alice` with the password `pencil`, who may do everything.
    async fn locked(origin: Origin) -> World {
        let world = World::at_the_door(timing(), Limits::default(), true, origin).await;
        world
            .change(
                "alice",
                UserChange::Add { credentials: credentials("pencil"), tags: [].into() },
            )
            .await;
        world.permit("alice", Some(permissions(".*", ".*", ".*"))).await;
        world
    }

    async fn change(&self, name: &str, change: UserChange) {
        let before = self.around.catalog.users_version();
        apply(&*self.around.session, &user(name), &change).await.unwrap();
        let known = |catalog: &crate::catalog::Catalog| catalog.users_version() > before;
        self.around.until("the change of the user is known", known).await;
    }

    async fn permit(&self, name: &str, permissions: Option<Permissions>) {
        self.change(name, UserChange::SetPermissions(host(), permissions)).await;
    }

    async fn start_login(&mut self, mechanism: &str, initial_response: impl Into<Bytes>) {
        let initial_response = LoginData(initial_response.into());
        let login = Some(LoginStart { mechanism: mechanism.to_owned(), initial_response });
        self.send(ClientFrame::Hello(Hello { login, ..hello() })).await;
    }

    async fn scram(&mut self, name: &str, password: &str) -> Result<Welcome, ErrorBody> {
        let first = ClientFirst::new(&user(name), [9; scram::RANDOM_BYTES]);
        self.start_login(scram::MECHANISM, first.message()).await;
        let challenge = match self.next().await {
            BrokerFrame::Challenge(challenge) => first.challenged(&challenge.0).unwrap(),
            BrokerFrame::Goodbye(error) => return Err(error),
            other => panic!("{other:?}"),
        };
        let salted = Password::new(password).unwrap();
        let salted = salted.salted(&challenge.salt, challenge.iterations).unwrap();
        let (answer, expected) = challenge.answer(&salted);
        self.send(ClientFrame::Authenticate(answer.into())).await;
        match self.next().await {
            BrokerFrame::Welcome(welcome) => {
                expected.check(&welcome.proof.as_ref().unwrap().0).unwrap();
                Ok(welcome)
            }
            BrokerFrame::Goodbye(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    async fn logged_in() -> World {
        let mut world = World::locked(near()).await;
        world.scram("alice", "pencil").await.unwrap();
        world
    }

    async fn publish_is_refused(&mut self, first: u64, key: &str) -> ErrorBody {
        self.publish(first, key).await;
        match self.answer().await {
            BrokerFrame::PublishFailed { error, .. } => error,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn who_proves_the_password_is_let_in_and_the_broker_proves_that_it_knows_the_user() {
    let mut world = World::logged_in().await;
    assert!(matches!(world.done(Request::ListExchanges).await, Response::Exchanges(_)));
    assert_eq!(world.service.metrics.logins.get(), 1);
}

#[tokio::test]
async fn a_producers_name_is_its_users_own() {
    let mut world = World::logged_in().await;
    world.attach_producer().await;
    world.publish(1, "orders").await;
    let taken = world.shard_takes_publishes().await.remove(0);
    assert_eq!(taken.producer.unwrap().as_str(), "@5:alice/shop");

    let mut world = World::new().await;
    world.attach_producer().await;
    world.publish(1, "orders").await;
    let taken = world.shard_takes_publishes().await.remove(0);
    assert_eq!(taken.producer.unwrap().as_str(), "shop", "nobody logged in");
}

/// Where a login is not required, who does not log in could say what brokers make of the name of a user's producer.
#[tokio::test]
async fn nobody_names_a_producer_as_brokers_name_those_of_users() {
    let mut world = World::new().await;
    let name = Some(ProducerName::new("@7:billing/p-1").unwrap());
    let error =
        world.refused(Request::AttachProducer { producer: PRODUCER, name, next: Seq(1) }).await;
    assert_eq!(error.code, ErrorCode::InvalidOption);
    assert!(error.message.contains("@7:billing/p-1") && error.message.contains("begin with @"));
    // The number is free still.
    world.attach_producer().await;
}

/// A password is not taken there either.
#[tokio::test]
async fn what_passwords_are_checked_against_does_not_cross_a_network_without_tls() {
    for (origin, is_told) in
        [(far(), false), (near(), true), (Origin::tls(far().address.unwrap(), None), true)]
    {
        let mut world = World::locked(origin).await;
        world.change("alice", UserChange::SetTags([UserTag::Administrator].into())).await;
        world.scram("alice", "pencil").await.unwrap();
        if is_told {
            let told = world.done(Request::ListCredentials).await;
            assert!(matches!(told, Response::Credentials(list) if list.len() == 1));
        } else {
            let error = world.refused(Request::ListCredentials).await;
            assert_eq!(error.code, ErrorCode::AccessRefused);
            assert!(error.message.contains("TLS"), "{}", error.message);
        }
    }
}

#[tokio::test]
async fn who_does_not_log_in_is_told_how_and_nothing_is_done_for_them() {
    let mut world = World::locked(near()).await;
    world.send(ClientFrame::Hello(hello())).await;
    let error = world.goodbye().await;
    assert_eq!(error.code, ErrorCode::LoginRequired);
    assert!(error.message.contains("SCRAM-SHA-256"), "{}", error.message);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_answered_alike() {
    let refused = async |name: &str, password: &str| {
        World::locked(near()).await.scram(name, password).await.unwrap_err()
    };
    let wrong = refused("alice", "pencils").await;
    assert_eq!(wrong.code, ErrorCode::LoginRefused);
    assert_eq!(refused("nobody", "pencil").await, wrong);
}

#[tokio::test]
async fn an_unknown_user_has_the_same_salt_each_time() {
    let mut world = World::locked(near()).await;
    let users = world.around.catalog.users().unwrap();
    let (found, decoy) = users.credentials(&user("nobody"));
    assert!(found.is_none());
    assert_eq!(users.credentials(&user("nobody")).1, decoy);
    let first = ClientFirst::new(&user("nobody"), [9; scram::RANDOM_BYTES]);
    world.start_login(scram::MECHANISM, first.message()).await;
    let BrokerFrame::Challenge(challenge) = world.next().await else { panic!("no challenge") };
    let challenge = first.challenged(&challenge.0).unwrap();
    assert_eq!((challenge.salt, challenge.iterations), (decoy.salt, scram::ITERATIONS));
}

// Auth that fails open: a broker that has not read the users knows nobody, and must neither let everybody in nor send everybody away
// for good.
#[tokio::test]
async fn while_the_users_are_not_known_nobody_is_let_in_and_everybody_may_try_again() {
    let around = Surroundings::that_reads_nothing().await;
    let service = Service::new(
        around.catalog.clone(),
        Arc::clone(&around.shard) as Arc<dyn ShardGate>,
        Arc::clone(&around.peers) as Arc<dyn PeerGate>,
        Arc::default(),
        Limits::default(),
        &timing(),
    );
    let service = Arc::new(service.with_login(true));
    for login in [
        LoginStart {
            mechanism: scram::MECHANISM.to_owned(),
            initial_response: "n,,n=alice,r=abc".to_owned().into(),
        },
        LoginStart {
            mechanism: PLAIN.to_owned(),
            initial_response: "\0alice\0pencil".to_owned().into(),
        },
        LoginStart { mechanism: EXTERNAL.to_owned(), initial_response: String::new().into() },
    ] {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let origin = Origin { certificate: Some(named("alice")), ..near() };
        tokio::spawn(serve_connection(
            theirs,
            origin,
            Arc::clone(&service),
            CancellationToken::new(),
        ));
        let mut client = Framed::new(ours, FrameCodec::<BrokerFrame>::new(FrameLimits::CLIENT));
        client.send(ClientFrame::Hello(Hello { login: Some(login), ..hello() })).await.unwrap();
        let answer = timeout(PATIENCE, client.next()).await.unwrap().unwrap().unwrap();
        let BrokerFrame::Goodbye(error) = answer else { panic!("{answer:?}") };
        assert_eq!(error.code, ErrorCode::LoginUnavailable);
        assert!(error.code.is_worth_retrying());
    }
}

#[tokio::test]
async fn a_password_in_the_clear_is_refused_before_it_is_looked_at() {
    let mut world = World::locked(far()).await;
    world.start_login(PLAIN, "\0alice\0pencil").await;
    assert_eq!(world.goodbye().await.code, ErrorCode::LoginRequired);
    assert_eq!(world.service.metrics.logins_failed.get(), 0, "it was not looked at");
    let mut world = World::locked(near()).await;
    world.start_login(PLAIN, "\0alice\0pencil").await;
    assert!(matches!(world.next().await, BrokerFrame::Welcome(_)));
    for wrong in ["\0alice\0pencils", "\0nobody\0pencil", "alice\0alice\0pencil", "\0alice", ""] {
        let mut world = World::locked(near()).await;
        world.start_login(PLAIN, wrong).await;
        assert_eq!(world.goodbye().await.code, ErrorCode::LoginRefused, "{wrong:?}");
    }
}

fn named(name: &str) -> CertificateIdentity {
    let (name, serial) = (name.to_owned(), "01".to_owned());
    CertificateIdentity { name, source: IdentitySource::CommonName, serial }
}

#[tokio::test]
async fn a_certificate_is_the_user_that_it_names_and_no_other() {
    let by = |name: &str| Origin { secured: true, certificate: Some(named(name)), ..far() };
    let mut world = World::locked(by("alice")).await;
    world.start_login(EXTERNAL, "").await;
    assert!(matches!(world.next().await, BrokerFrame::Welcome(_)));
    let mut world = World::locked(by("alice")).await;
    world.start_login(EXTERNAL, "bob").await;
    assert_eq!(world.goodbye().await.code, ErrorCode::LoginRefused);
    let mut world = World::locked(by("mallory")).await;
    world.start_login(EXTERNAL, "").await;
    assert_eq!(world.goodbye().await.code, ErrorCode::LoginRefused);
    let mut world = World::locked(far()).await;
    world.start_login(EXTERNAL, "alice").await;
    assert_eq!(world.goodbye().await.code, ErrorCode::LoginRequired, "no certificate");
}

#[tokio::test]
async fn a_login_given_where_none_is_required_still_has_to_be_right() {
    let mut world = World::before_hello(timing(), Limits::default()).await;
    assert_eq!(world.scram("nobody", "pencil").await.unwrap_err().code, ErrorCode::LoginRefused);
}

#[tokio::test]
async fn a_login_takes_two_messages_and_no_third() {
    let mut world = World::locked(near()).await;
    world.start_login(scram::MECHANISM, "n,,n=alice,r=abc").await;
    assert!(matches!(world.next().await, BrokerFrame::Challenge(_)));
    world.start_login(scram::MECHANISM, "n,,n=alice,r=abc").await;
    assert_eq!(world.goodbye().await.code, ErrorCode::UnexpectedFrame);
    let mut world = World::logged_in().await;
    world.send(ClientFrame::Authenticate("c=biws".to_owned().into())).await;
    assert_eq!(world.goodbye().await.code, ErrorCode::UnexpectedFrame);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_not_finished_in_time_is_over() {
    let mut world = World::locked(near()).await;
    world.start_login(scram::MECHANISM, "n,,n=alice,r=abc").await;
    assert!(matches!(world.next().await, BrokerFrame::Challenge(_)));
    assert_eq!(world.goodbye().await.code, ErrorCode::HeartbeatMissed);
}

#[tokio::test]
async fn a_user_without_permission_in_the_virtual_host_is_told_so_after_the_password() {
    let mut world = World::locked(near()).await;
    world.permit("alice", None).await;
    assert_eq!(world.scram("alice", "pencil").await.unwrap_err().code, ErrorCode::AccessRefused);
}

#[tokio::test]
async fn a_refusal_does_not_tell_whether_the_thing_exists() {
    let mut world = World::locked(near()).await;
    world.permit("alice", Some(permissions("", "", "mine"))).await;
    world.scram("alice", "pencil").await.unwrap();
    world.attach_producer().await;
    let there = world.refused(attach_consumer("orders")).await;
    let not_there = world.refused(attach_consumer("nothing")).await;
    assert_eq!(there.code, ErrorCode::AccessRefused);
    assert_eq!(there.message.replace("orders", "nothing"), not_there.message);
    for key in ["orders", "nothing"] {
        assert_eq!(world.publish_is_refused(1, key).await.code, ErrorCode::AccessRefused);
    }
    let purge = Request::PurgeQueue { queue: queue("nothing") };
    assert_eq!(world.refused(purge).await.code, ErrorCode::AccessRefused);
    let Response::Queues(queues) = world.done(Request::ListQueues { after: None, limit: 10 }).await
    else {
        panic!("no list")
    };
    assert!(queues.is_empty(), "not even in a list: {queues:?}");
}

#[tokio::test]
async fn a_permission_that_is_taken_away_stops_publishes_and_deliveries_in_mid_stream() {
    let mut world = World::logged_in().await;
    world.attach_producer().await;
    world.publish(1, "orders").await;
    assert_eq!(world.shard_takes_publishes().await.len(), 1);
    let consumer = world.attach_consumer().await;
    assert!(consumer.sink.deliver(Epoch(1), lease(), vec![run(1, block(1))]));
    assert_eq!(world.delivered().await, Offset(1));

    world.permit("alice", Some(permissions(".*", "", ""))).await;
    match world.answer().await {
        BrokerFrame::ConsumerClosed { consumer: CONSUMER, error } => {
            assert_eq!(error.code, ErrorCode::AccessRefused);
            assert!(error.message.contains("read"), "{}", error.message);
        }
        other => panic!("{other:?}"),
    }
    let detached = |input| matches!(input, ShardInput::Detach { .. }).then_some(());
    world.around.shard.next(detached).await;
    consumer.sink.deliver(Epoch(1), lease(), vec![run(2, block(1))]);
    let error = world.publish_is_refused(2, "orders").await;
    assert_eq!((error.code, error.outcome), (ErrorCode::AccessRefused, Outcome::NotDone));

    world.permit("alice", Some(permissions(".*", ".*", ".*"))).await;
    world.publish(2, "orders").await;
    assert_eq!(world.shard_takes_publishes().await.len(), 1, "and goes on when it is given back");
}

#[tokio::test]
async fn a_permission_that_stays_disturbs_nobody_when_another_changes() {
    let mut world = World::logged_in().await;
    let consumer = world.attach_consumer().await;
    world.permit("alice", Some(permissions("", "", "orders"))).await;
    world.change("bob", UserChange::Add { credentials: credentials("x"), tags: [].into() }).await;
    assert!(consumer.sink.deliver(Epoch(1), lease(), vec![run(1, block(1))]));
    assert_eq!(world.delivered().await, Offset(1));
}

#[tokio::test]
async fn a_deleted_user_and_one_with_another_password_are_cut_off() {
    for change in [UserChange::Delete, UserChange::SetPassword(credentials("other"))] {
        let mut world = World::logged_in().await;
        world.change("alice", change).await;
        assert_eq!(world.goodbye().await.code, ErrorCode::LoginRefused);
    }
}

#[tokio::test]
async fn a_user_whose_document_cannot_be_read_any_more_is_cut_off() {
    use bellwether_coordinator::coordinator::Write;
    use bellwether_coordinator::paths;
    let mut world = World::logged_in().await;
    let path = paths::user(&user("alice"));
    let version = world.around.session.read(&path).await.unwrap().unwrap().version;
    let write = Write::Set { path, bytes: Bytes::from_static(b"{}"), version };
    world.around.session.write(vec![write]).await.unwrap();
    assert_eq!(world.goodbye().await.code, ErrorCode::LoginRefused);
}

#[tokio::test]
async fn only_an_administrator_looks_after_users() {
    let mut world = World::logged_in().await;
    let like_all = |password: &str| Credentials::derive(&Password::new(password).unwrap(), SALT);
    let add = Request::AddUser { user: user("bob"), credentials: like_all("b"), tags: vec![] };
    assert_eq!(world.refused(add.clone()).await.code, ErrorCode::AccessRefused);
    assert_eq!(world.refused(Request::ListUsers).await.code, ErrorCode::AccessRefused);

    let mut world = World::locked(near()).await;
    let tags = [UserTag::Administrator].into();
    world.change("root", UserChange::Add { credentials: like_all("r"), tags }).await;
    world.scram("root", "r").await.unwrap();
    // Fewer iterations than a decoy has would tell strangers that there is a bob.
    let odd = Request::AddUser { user: user("bob"), credentials: credentials("b"), tags: vec![] };
    assert_eq!(world.refused(odd).await.code, ErrorCode::InvalidOption);
    assert_eq!(world.done(add.clone()).await, Response::Done);
    let again = Request::AddUser { user: user("bob"), credentials: like_all("c"), tags: vec![] };
    assert_eq!(world.refused(again).await.code, ErrorCode::UserExists);
    let permit = |read: &str| Request::SetPermissions {
        user: user("bob"),
        virtual_host: host(),
        permissions: Some(permissions("", "", read)),
    };
    assert_eq!(world.refused(permit("(")).await.code, ErrorCode::InvalidOption);
    assert_eq!(world.done(permit("a.*")).await, Response::Done);
    let Response::Users(users) = world.done(Request::ListUsers).await else { panic!("no list") };
    let names: Vec<&str> = users.iter().map(|user| user.user.as_str()).collect();
    assert_eq!(names, ["alice", "bob", "root"]);
    assert_eq!(users[1].permissions, [(host(), permissions("", "", "a.*"))]);
    assert_eq!(
        world.done(Request::DeleteUser { user: user("bob"), force: false }).await,
        Response::Done
    );
    let gone = world.refused(Request::DeleteUser { user: user("bob"), force: false }).await;
    assert_eq!(gone.code, ErrorCode::NoSuchUser);
    assert_eq!(world.refused(attach_consumer("orders")).await.code, ErrorCode::AccessRefused);
}

fn like_all(password: &str) -> Credentials {
    Credentials::derive(&Password::new(password).unwrap(), SALT)
}

impl World {
    /// Logged in as `root`, and beside it there are these other administrators.
    async fn administrated(others: &[&str]) -> World {
        let mut world = World::locked(near()).await;
        for name in ["root"].iter().chain(others) {
            let (credentials, tags) = (credentials(name), [UserTag::Administrator].into());
            world.change(name, UserChange::Add { credentials, tags }).await;
        }
        world.scram("root", "root").await.unwrap();
        world
    }
}

fn delete(name: &str, force: bool) -> Request {
    Request::DeleteUser { user: user(name), force }
}

fn untag(name: &str, force: bool) -> Request {
    Request::SetTags { user: user(name), tags: vec![UserTag::Monitoring], force }
}

/// The connection was closed before the answer was written, and the client had to say "unknown" of what was done.
#[tokio::test]
async fn who_deletes_itself_or_changes_its_password_hears_that_it_is_done_before_it_is_cut_off() {
    let mut world = World::administrated(&["second"]).await;
    assert_eq!(world.done(delete("root", false)).await, Response::Done);
    assert_eq!(world.goodbye().await.code, ErrorCode::LoginRefused);

    // Derived before the connection is made, which wants its hello in time.
    let change = Request::SetPassword { user: user("root"), credentials: like_all("other") };
    let mut world = World::administrated(&[]).await;
    assert_eq!(world.done(change).await, Response::Done);
    assert_eq!(world.goodbye().await.code, ErrorCode::LoginRefused);
}

#[tokio::test]
async fn the_last_administrator_is_neither_deleted_nor_untagged_unless_that_is_forced() {
    let mut world = World::administrated(&[]).await;
    for request in [delete("root", false), untag("root", false)] {
        let refused = world.refused(request).await;
        assert_eq!((refused.code, refused.outcome), (ErrorCode::NotAllowed, Outcome::NotDone));
        for words in ["last administrator", "--force", "user add --zookeeper"] {
            assert!(refused.message.contains(words), "{}", refused.message);
        }
    }
    // Of others, and with the tag, anything.
    let tags = vec![UserTag::Administrator, UserTag::Monitoring];
    let more = Request::SetTags { user: user("root"), tags, force: false };
    assert_eq!(world.done(more).await, Response::Done);
    assert_eq!(world.done(delete("alice", false)).await, Response::Done);
    assert_eq!(world.done(untag("root", true)).await, Response::Done);
    assert_eq!(world.refused(Request::ListUsers).await.code, ErrorCode::AccessRefused);
}

#[tokio::test]
async fn of_two_administrators_one_may_go_and_the_other_then_not() {
    let mut world = World::administrated(&["second"]).await;
    assert_eq!(world.done(untag("second", false)).await, Response::Done);
    assert_eq!(world.refused(delete("root", false)).await.code, ErrorCode::NotAllowed);
    assert_eq!(world.done(delete("root", true)).await, Response::Done);
}

/// Its lists were refused, though docs/security.md promises them: the command asked for marks of the whole cluster beside them.
#[tokio::test]
async fn a_user_without_a_tag_gets_what_lists_and_descriptions_are_made_of() {
    let mut world = World::logged_in().await;
    let Response::Queues(queues) = world.done(Request::ListQueues { after: None, limit: 10 }).await
    else {
        panic!("no queues")
    };
    assert_eq!(queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(), ["orders"]);
    assert!(!queues[0].tainted);
    world.done(Request::ListExchanges).await;
    world.done(Request::ListBindings { queue: None }).await;
    let orders = bellwether_protocol::names::QueueName::new("orders").unwrap();
    world.done(Request::QueueCondition { queue: orders }).await;
    let refused = world.refused(Request::ListDefinitions { after: None, limit: 10 }).await;
    for words in ["as a backup does", "administrator or monitoring", "user tags alice monitoring"] {
        assert!(refused.message.contains(words), "{}", refused.message);
    }
}

#[tokio::test(start_paused = true)]
async fn who_guesses_from_one_address_is_soon_not_even_looked_at() {
    let world = World::locked(near()).await;
    let refusal = async || {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let service = Arc::clone(&world.service);
        tokio::spawn(serve_connection(theirs, near(), service, CancellationToken::new()));
        let mut client = Framed::new(ours, FrameCodec::<BrokerFrame>::new(FrameLimits::CLIENT));
        let login = LoginStart {
            mechanism: PLAIN.to_owned(),
            initial_response: "\0alice\0wrong".to_owned().into(),
        };
        client.send(ClientFrame::Hello(Hello { login: Some(login), ..hello() })).await.unwrap();
        match client.next().await.unwrap().unwrap() {
            BrokerFrame::Goodbye(error) => error.code,
            other => panic!("{other:?}"),
        }
    };
    let mut looked_at = 0_u64;
    loop {
        match refusal().await {
            ErrorCode::LoginRefused => looked_at += 1,
            other => {
                assert_eq!(other, ErrorCode::LoginUnavailable);
                break;
            }
        }
    }
    assert!(looked_at >= 3, "people mistype");
    assert_eq!(world.service.metrics.logins_failed.get(), looked_at + 1);
}

/// One of many clients behind an address guessed, or had an old password, and those with certificates waited and were sent away with the rest.
#[tokio::test]
async fn a_certificate_does_not_wait_for_those_who_guess_passwords() {
    let origin = Origin { certificate: Some(named("alice")), ..near() };
    let address = origin.address;
    let mut world = World::locked(origin).await;
    for n in 0..100 {
        world.service.login.failed(address, &user("alice"));
        world.service.login.failed(address, &user(&n.to_string()));
    }
    assert!(world.service.login.turn(address, &user("bob")).await.is_some(), "it waits its turn");
    world.start_login(EXTERNAL, "").await;
    assert!(matches!(world.next().await, BrokerFrame::Welcome(_)));
}

/// The permit came back when the handshake ran out of time, and the next client's derivation began beside the one that went on: connections that
/// nobody waited for kept every processor busy.
#[tokio::test(start_paused = true)]
async fn a_derivation_counts_until_it_is_done_and_not_until_the_client_is_gone() {
    let mut world = World::locked(near()).await;
    let slow = Credentials {
        salt: SALT.to_vec(),
        iterations: 2 * scram::ITERATIONS,
        stored_key: [0; 32],
        server_key: [0; 32],
    };
    world.change("alice", UserChange::SetPassword(slow)).await;
    let free = |world: &World| world.service.login.derivations.available_permits();
    let all = free(&world);
    world.start_login(PLAIN, "\0alice\0pencil").await;
    while free(&world) == all {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(timing().handshake_timeout * 2).await;
    let ended = timeout(PATIENCE, world.client.next()).await.unwrap();
    assert!(!matches!(ended, Some(Ok(BrokerFrame::Welcome(_)))), "{ended:?}");
    assert_eq!(free(&world), all - 1, "it goes on");
    while free(&world) < all {
        tokio::task::yield_now().await;
    }
}
