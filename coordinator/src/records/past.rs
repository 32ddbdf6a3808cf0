//! What a queue's state remembers of how it came to be: the last elections, why the last leader resigned, how far the log was
//! known to be committed, and whether a leader was forced on it. Rules decide by none of it but the taint; people do.

use bellwether_protocol::ids::{BrokerLife, Epoch, Offset};
use serde::{Deserialize, Serialize};

use super::UnknownFields;
use super::later::LaterInState;
use crate::paths;

/// Elections that a state remembers. Each takes some 130 bytes of a document that every broker reads.
pub const ELECTIONS_MAX: usize = 8;
/// Characters of a reason that a state keeps: enough for a sentence, and a state stays small.
pub const WHY_CHARS_MAX: usize = 240;

/// See the module. Every field is new to documents of older versions, which lack it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The newest last.
    pub elections: Vec<Election>,
    /// While nobody leads: who gave the leadership up, and why.
    pub resignation: Option<Resignation>,
    pub committed: Option<Committed>,
    pub taint: Option<Taint>,
    /// What a later version wrote into the entries of the state.
    pub later: Option<Box<LaterInState>>,
}

/// One change of the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    pub epoch: Epoch,
    /// Milliseconds since 1970, by the clock of who wrote it.
    pub at_ms: u64,
    pub from: Option<BrokerLife>,
    pub to: BrokerLife,
    pub trigger: Trigger,
    /// Of a resignation: the words of who resigned.
    pub why: Option<String>,
    /// From when it was known that another leader is needed until the coordinator was asked for it.
    pub took_ms: u64,
}

/// What made another leader necessary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The queue was declared.
    Declared,
    /// The leader's process was provably dead.
    ProcessGone,
    /// The leader's session with the coordinator was over.
    SessionExpired,
    /// The leader gave the leadership up.
    Resigned,
    /// The leader's broker drained or stopped, and named its successor.
    Drained,
    /// The leadership moved to where it belongs.
    Moved,
    /// An operator forced it.
    Forced,
    /// None: an operator has dealt with what was lost when a leader was forced.
    TaintCleared,
    /// A trigger of a later version.
    Other(String),
}

impl Trigger {
    /// As it stands in the document.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Trigger::Declared => "declared",
            Trigger::ProcessGone => "process gone",
            Trigger::SessionExpired => "session expired",
            Trigger::Resigned => "resigned",
            Trigger::Drained => "drained",
            Trigger::Moved => "moved",
            Trigger::Forced => "forced",
            Trigger::TaintCleared => "taint cleared",
            Trigger::Other(text) => text,
        }
    }

    fn parse(text: String) -> Trigger {
        let known = [
            Trigger::Declared,
            Trigger::ProcessGone,
            Trigger::SessionExpired,
            Trigger::Resigned,
            Trigger::Drained,
            Trigger::Moved,
            Trigger::Forced,
            Trigger::TaintCleared,
        ];
        known.into_iter().find(|trigger| trigger.as_str() == text).unwrap_or(Trigger::Other(text))
    }
}

/// A leadership that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resignation {
    pub by: BrokerLife,
    pub why: String,
}

/// What was known to be committed while a copy of the replica set was not in sync: what that copy would lack, should it be the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Every offset below was committed.
    pub end: Offset,
    /// Messages below it.
    pub enqueued: u64,
    /// Of these settled or purged.
    pub settled: u64,
    pub at_ms: u64,
    /// The epoch of the leader that wrote it, and where that begins in the log: a copy whose last epoch is an older one may hold
    /// messages from there on that were never committed. `None`: written by a version that did not say.
    pub term: Option<(Epoch, Offset)>,
}

/// An operator forced a leader on the queue: it may lack messages that were confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// The first epoch of the forced leader.
    pub epoch: Epoch,
    pub by: BrokerLife,
    pub at_ms: u64,
    /// Where the log ended that was made the queue's.
    pub end: Offset,
    /// Confirmed messages that are known to be lost.
    pub lost: u64,
    /// Whether there may be more of them that nothing is known of.
    pub more: bool,
    /// An operator has dealt with it. It stays what it is to rules: logs of before need not agree with the queue's.
    pub cleared: Option<Cleared>,
}

/// Who has dealt with what was lost, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleared {
    pub at_ms: u64,
    pub by: String,
}

impl Past {
    /// The same with one more election. What belongs to the time without a leader is over with it.
    #[must_use]
    pub fn with(mut self, election: Election) -> Past {
        self.resignation = None;
        self.push(election);
        self
    }

    /// An operator has dealt with what was lost when a leader was forced on the queue. It is told among the elections, too: there one
    /// looks for what has happened to a queue. `None` when there is nothing to be dealt with.
    #[must_use]
    pub fn with_taint_cleared(mut self, cleared: Cleared) -> Option<Past> {
        let taint = self.taint.as_mut().filter(|taint| taint.cleared.is_none())?;
        let more = if taint.more { ", perhaps more" } else { "" };
        let why = format!(
            "by {}; known to be lost were {} confirmed messages{more}",
            cleared.by, taint.lost
        );
        let told = Election {
            epoch: taint.epoch,
            at_ms: cleared.at_ms,
            from: Some(taint.by),
            to: taint.by,
            trigger: Trigger::TaintCleared,
            why: Some(shortened(&why)),
            took_ms: 0,
        };
        taint.cleared = Some(cleared);
        self.push(told);
        Some(self)
    }

    /// What nobody has dealt with yet.
    #[must_use]
    pub fn open_taint(&self) -> Option<&Taint> {
        self.taint.as_ref().filter(|taint| taint.cleared.is_none())
    }

    fn push(&mut self, election: Election) {
        self.elections.push(election);
        let surplus = self.elections.len().saturating_sub(ELECTIONS_MAX);
        self.elections.drain(..surplus);
    }
}

/// `why`, as much of it as a state keeps.
#[must_use]
pub fn shortened(why: &str) -> String {
    match why.char_indices().nth(WHY_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &why[..at]),
        None => why.to_owned(),
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct ElectionJson {
    epoch: u64,
    at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    to: String,
    trigger: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    took_ms: u64,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ResignationJson {
    by: String,
    why: String,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
pub(super) struct CommittedJson {
    end: u64,
    enqueued: u64,
    settled: u64,
    at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch_start: Option<u64>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
pub(super) struct TaintJson {
    epoch: u64,
    by: String,
    at_ms: u64,
    end: u64,
    lost: u64,
    more: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cleared: Option<ClearedJson>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct ClearedJson {
    at_ms: u64,
    by: String,
    #[serde(flatten)]
    unknown: UnknownFields,
}

/// The fields of [`Past`] as they stand among those of the state.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct PastJson {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    elections: Vec<ElectionJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resigned: Option<ResignationJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    committed: Option<CommittedJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tainted: Option<TaintJson>,
}

impl From<&Past> for PastJson {
    fn from(past: &Past) -> PastJson {
        let none = LaterInState::default();
        let later = past.later.as_deref().unwrap_or(&none);
        let election = |election: &Election| ElectionJson {
            epoch: election.epoch.0,
            at_ms: election.at_ms,
            from: election.from.map(|life| life.to_string()),
            to: election.to.to_string(),
            trigger: election.trigger.as_str().to_owned(),
            why: election.why.clone(),
            took_ms: election.took_ms,
            unknown: later.elections.of(election),
        };
        PastJson {
            elections: past.elections.iter().map(election).collect(),
            resigned: past.resignation.as_ref().map(|resignation| ResignationJson {
                by: resignation.by.to_string(),
                why: resignation.why.clone(),
                unknown: later.resigned.of(resignation),
            }),
            committed: past.committed.map(|committed| CommittedJson {
                end: committed.end.0,
                enqueued: committed.enqueued,
                settled: committed.settled,
                at_ms: committed.at_ms,
                epoch: committed.term.map(|(epoch, _)| epoch.0),
                epoch_start: committed.term.map(|(_, start)| start.0),
                unknown: later.committed.of(&committed),
            }),
            tainted: past.taint.as_ref().map(|taint| TaintJson {
                epoch: taint.epoch.0,
                by: taint.by.to_string(),
                at_ms: taint.at_ms,
                end: taint.end.0,
                lost: taint.lost,
                more: taint.more,
                cleared: taint.cleared.as_ref().map(|cleared| ClearedJson {
                    at_ms: cleared.at_ms,
                    by: cleared.by.clone(),
                    unknown: later.cleared.of(cleared),
                }),
                unknown: later.taint(taint),
            }),
        }
    }
}

impl PastJson {
    /// `later`: what was found in the rest of the state.
    pub(super) fn into_past(self, mut later: LaterInState) -> Result<Past, String> {
        let mut elections = Vec::with_capacity(self.elections.len());
        for json in self.elections {
            let (election, unknown) = election(json)?;
            later.elections.keep(election.clone(), unknown);
            elections.push(election);
        }
        let mut resignation = None;
        if let Some(json) = self.resigned {
            let resigned = Resignation { by: life(&json.by)?, why: json.why };
            later.resigned.keep(resigned.clone(), json.unknown);
            resignation = Some(resigned);
        }
        let mut noted = None;
        if let Some(json) = self.committed {
            let CommittedJson { end, enqueued, settled, at_ms, epoch, epoch_start, unknown } = json;
            let term = epoch.map(Epoch).zip(epoch_start.map(Offset));
            let committed = Committed { end: Offset(end), enqueued, settled, at_ms, term };
            later.committed.keep(committed, unknown);
            noted = Some(committed);
        }
        let mut tainted = None;
        if let Some(json) = self.tainted {
            let (taint, unknown, of_cleared) = taint(json)?;
            later.tainted.keep((taint.epoch, taint.by), unknown);
            if let Some(cleared) = &taint.cleared {
                later.cleared.keep(cleared.clone(), of_cleared);
            }
            tainted = Some(taint);
        }
        let later = (later != LaterInState::default()).then(|| Box::new(later));
        Ok(Past { elections, resignation, committed: noted, taint: tainted, later })
    }
}

fn election(json: ElectionJson) -> Result<(Election, UnknownFields), String> {
    let election = Election {
        epoch: Epoch(json.epoch),
        at_ms: json.at_ms,
        from: json.from.as_deref().map(life).transpose()?,
        to: life(&json.to)?,
        trigger: Trigger::parse(json.trigger),
        why: json.why,
        took_ms: json.took_ms,
    };
    Ok((election, json.unknown))
}

/// The taint, and the fields of a later version: its own, and those of its being cleared.
fn taint(json: TaintJson) -> Result<(Taint, UnknownFields, UnknownFields), String> {
    let (cleared, of_cleared) = match json.cleared {
        Some(json) => (Some(Cleared { at_ms: json.at_ms, by: json.by }), json.unknown),
        None => (None, UnknownFields::new()),
    };
    let taint = Taint {
        epoch: Epoch(json.epoch),
        by: life(&json.by)?,
        at_ms: json.at_ms,
        end: Offset(json.end),
        lost: json.lost,
        more: json.more,
        cleared,
    };
    Ok((taint, json.unknown, of_cleared))
}

fn life(text: &str) -> Result<BrokerLife, String> {
    paths::parse_life(text).ok_or_else(|| format!("{text:?} is no life of a broker"))
}
