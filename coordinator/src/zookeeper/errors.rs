//! What ZooKeeper's errors mean: decided or not. Whatever is not known to be decided is undecided.

use zookeeper_client as zk;

use crate::coordinator::{Conflict, ReadError, WriteError};

pub(super) fn read_error(error: zk::Error) -> ReadError {
    match error {
        zk::Error::NoAuth => {
            ReadError::Denied("the access list does not allow reading it".to_owned())
        }
        // The library says so by its own clock too: the session layer asks the servers.
        zk::Error::SessionExpired => ReadError::SessionOver,
        other => ReadError::Unavailable(other.to_string()),
    }
}

pub(super) fn write_error(error: zk::MultiWriteError) -> WriteError {
    match error {
        zk::MultiWriteError::OperationFailed { index, source } => step_error(index, source),
        zk::MultiWriteError::RequestFailed { source } => request_error(source),
    }
}

fn step_error(index: usize, source: zk::Error) -> WriteError {
    let refused = |conflict| WriteError::Refused { index, conflict };
    match source {
        zk::Error::BadVersion => refused(Conflict::VersionMoved),
        zk::Error::NodeExists => refused(Conflict::Exists),
        // Below an ephemeral nothing can be made; for the author that is as good as no parent.
        zk::Error::NoNode | zk::Error::NoChildrenForEphemerals => refused(Conflict::Missing),
        zk::Error::NotEmpty => refused(Conflict::HasChildren),
        zk::Error::NoAuth => {
            WriteError::Invalid(format!("step {index}: the access list does not allow it"))
        }
        zk::Error::InvalidAcl => {
            WriteError::Invalid(format!("step {index}: an access list needs a login"))
        }
        zk::Error::BadArguments(reason) => WriteError::Invalid(format!("step {index}: {reason}")),
        zk::Error::QuotaExceeded => {
            WriteError::Invalid(format!("step {index}: over a quota set in ZooKeeper"))
        }
        other => request_error(other),
    }
}

fn request_error(source: zk::Error) -> WriteError {
    match source {
        zk::Error::SessionExpired => WriteError::SessionOver,
        zk::Error::NoAuth => WriteError::Invalid("the access list does not allow it".to_owned()),
        // Connection loss comes as `ConnectionLoss`, as `Custom` with the socket's error, as `ClientClosed`, or as a bug
        // report of the library when its task is ended: in all of them the write may have been applied.
        other => WriteError::Undecided(other.to_string()),
    }
}
