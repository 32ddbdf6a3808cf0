//! One contract, two coordinators: the embedded one over TCP, and a real ZooKeeper ensemble of three.

mod proxy;
mod stories;
mod world;
mod zookeeper_only;

/// Tells each story once with each coordinator, all in parallel.
macro_rules! contract {
    ($($story:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $story() {
                crate::stories::$story(crate::world::World::embedded().await).await;
            })*
        }
        mod zookeeper {
            $(#[tokio::test]
            async fn $story() {
                crate::stories::$story(crate::world::World::zookeeper(stringify!($story)).await).await;
            })*
        }
    };
}

/// The same for stories that hurt the coordinator.
macro_rules! contract_in_outages {
    ($($story:ident),* $(,)?) => {
        mod embedded_outages {
            $(#[tokio::test]
            async fn $story() {
                crate::stories::$story(crate::world::World::embedded().await).await;
            })*
        }
        mod zookeeper_outages {
            $(#[tokio::test]
            async fn $story() {
                crate::stories::$story(crate::world::World::zookeeper_of_its_own(3).await).await;
            })*
        }
    };
}

contract!(
    of_several_that_name_the_same_version_one_wins,
    a_write_of_many_steps_is_carried_out_whole_or_not_at_all,
    reads_come_back_in_the_order_in_which_they_were_asked,
    an_ephemeral_is_gone_when_its_session_is_closed,
    a_session_that_nobody_holds_lapses_by_its_time_out,
    a_session_expires_when_the_coordinator_hears_nothing_of_it,
    a_cut_connection_costs_neither_the_session_nor_its_ephemerals,
    a_request_made_while_disconnected_fails_at_once_and_is_never_sent,
    a_reply_lost_after_the_write_was_applied_leaves_it_undecided_until_it_is_read,
    a_change_below_a_watched_prefix_is_told_and_no_other,
    a_second_subscriber_hears_what_it_watches_itself,
    after_a_gap_what_was_missed_can_be_read_and_watches_are_set_again,
    a_watch_asked_for_while_disconnected_is_set_on_return,
    after_a_sync_everything_committed_before_can_be_read,
    after_a_sync_every_change_before_has_been_told,
    calls_of_one_session_are_carried_out_in_order,
    a_thousand_of_the_longest_names_make_no_child_list_too_long,
    any_name_that_users_choose_can_be_written_and_read_back,
    parents_are_made_once_by_however_many,
    a_write_over_the_limit_is_refused_before_it_is_sent,
    the_time_out_granted_is_shown_beside_the_one_asked_for,
    requests_given_up_by_their_author_do_not_clog_the_session,
);

contract_in_outages!(
    an_outage_longer_than_the_time_out_costs_no_session,
    one_who_connects_before_there_is_anything_waits_for_it,
);
