//! The one line that `serve` prints when it is ready. `demo`, `dev` and tests read the ports from it.

use std::fmt;
use std::str::FromStr;

/// Where a broker that is ready can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    pub id: u32,
    pub clients: String,
    pub brokers: String,
    pub admin: Option<String>,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "broker {} is ready: clients {}, brokers {}",
            self.id, self.clients, self.brokers
        )?;
        match &self.admin {
            Some(admin) => write!(f, ", admin {admin}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Ready {
    type Err = ();

    fn from_str(line: &str) -> Result<Ready, ()> {
        let (id, addresses) = line
            .trim_end()
            .strip_prefix("broker ")
            .and_then(|rest| rest.split_once(" is ready: "))
            .ok_or(())?;
        let mut parts = addresses.split(", ");
        let mut next =
            |name: &str| parts.next().and_then(|part| part.strip_prefix(name)).map(str::to_owned);
        let (clients, brokers) = (next("clients ").ok_or(())?, next("brokers ").ok_or(())?);
        Ok(Ready { id: id.parse().map_err(drop)?, clients, brokers, admin: next("admin ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_prints_can_be_read_back() {
        for admin in [None, Some("127.0.0.1:3".to_owned())] {
            let ready = Ready {
                id: 7,
                clients: "127.0.0.1:1".into(),
                brokers: "127.0.0.1:2".into(),
                admin,
            };
            assert_eq!(ready.to_string().parse(), Ok(ready));
        }
        assert_eq!("something else".parse::<Ready>(), Err(()));
    }
}
