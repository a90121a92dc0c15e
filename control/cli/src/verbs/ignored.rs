//! `ignored`: fields that proxies were given and do not know.

use crate::Common;
use crate::exit::{Exit, Failure};
use crate::show;
use api::pb::Proxy;
use std::collections::BTreeMap;

pub(super) async fn run(common: &Common) -> Result<Exit, Failure> {
    let mut daemon = common.connect().await?;
    let proxies = super::status::ask(&mut daemon).await?.proxies;
    show::answer(common.output, &by_field(proxies), |fields| people(fields))?;
    Ok(Exit::Done)
}

/// A field and the proxies that do not know it: mostly all of a kind.
#[derive(serde::Serialize)]
struct Ignored {
    field: String,
    proxies: Vec<String>,
}

fn by_field(proxies: Vec<Proxy>) -> Vec<Ignored> {
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for proxy in proxies {
        for field in proxy.ignored {
            fields.entry(field).or_default().push(proxy.id.clone());
        }
    }
    fields.into_iter().map(|(field, proxies)| Ignored { field, proxies }).collect()
}

fn people(fields: &[Ignored]) -> String {
    const SHOWN: usize = 3;
    let rows = fields.iter().map(|Ignored { field, proxies }| {
        let more = proxies.len().saturating_sub(SHOWN);
        let mut shown = proxies.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        if more > 0 {
            shown += &format!(" and {more} more");
        }
        vec![field.clone(), shown]
    });
    show::table(&["field", "proxies"], rows.collect(), "every proxy knows all that it was given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_stands_once_however_many_do_not_know_it() {
        let proxy =
            |n: u32| Proxy { id: format!("p{n}"), ignored: vec!["cluster/app: x".to_owned()], ..Proxy::default() };
        let shown = people(&by_field((1..=5).map(proxy).collect()));
        assert_eq!(shown, "FIELD           PROXIES\ncluster/app: x  p1, p2, p3 and 2 more\n");
    }
}
