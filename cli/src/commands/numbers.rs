//! `bellwether cluster limits`: how many queues, exchanges and bindings there are and may be; and, before a restore, whether what it
//! makes still fits.

use bellwether_client::{Client, Number, NumberOf};
use serde_json::json;

use super::table::{grouped, print_json, print_table, table};
use crate::outcome::Failure;

/// Shows them.
pub async fn show(client: &Client, json: bool) -> Result<(), Failure> {
    let numbers = client.count_objects().await?;
    if json {
        let rows: Vec<_> = numbers
            .iter()
            .map(|number| {
                json!({ "setting": number.of.setting(), "used": number.used, "most": number.most })
            })
            .collect();
        return print_json(&json!({ "limits": rows }));
    }
    let mut rows = table(&["what", "used", "most", "setting"]);
    for Number { of, used, most } in numbers {
        rows.add_row([of.what().to_owned(), grouped(used), grouped(most), of.setting().to_owned()]);
    }
    print_table(&rows)
}

/// Refuses what does not fit before anything is made of it. `more`: so many of each.
pub fn fits(numbers: &[Number], more: &[(NumberOf, usize)]) -> Result<(), Failure> {
    let too_many = more.iter().filter_map(|(of, more)| {
        let number = numbers.iter().find(|number| number.of == *of)?;
        let wanted = number.used.saturating_add(*more as u64);
        (*more > 0 && wanted > number.most).then(|| {
            let (setting, most) = (of.setting(), number.most);
            format!(
                "\n  {} would be {wanted}, and {setting} allows {most}: `bellwether cluster config set {setting} {wanted}`",
                of.what()
            )
        })
    });
    let words: String = too_many.collect();
    if words.is_empty() {
        return Ok(());
    }
    Err(Failure::NotDone(format!(
        "nothing was restored: there would be more than the cluster may have.{words}\nRaise that first, or delete what nobody uses."
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_named_with_its_setting_and_what_is_there_already_needs_no_room() {
        let numbers = [
            Number { of: NumberOf::Queues, used: 8, most: 10 },
            Number { of: NumberOf::Bindings, used: 30, most: 20 },
        ];
        fits(&numbers, &[(NumberOf::Queues, 2), (NumberOf::Bindings, 0)]).unwrap();
        let more = [(NumberOf::Queues, 3), (NumberOf::Exchanges, 9), (NumberOf::Bindings, 1)];
        let Failure::NotDone(refused) = fits(&numbers, &more).unwrap_err() else {
            panic!("it is not done")
        };
        assert!(refused.contains("queues would be 11, and queues-max allows 10"), "{refused}");
        assert!(refused.contains("config set bindings-max 31"), "{refused}");
        assert!(!refused.contains("exchanges"), "{refused}");
    }
}
