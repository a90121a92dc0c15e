//! `rejects`: what proxies refuse, and why. They go on with the last good one.

use crate::Common;
use crate::exit::{Exit, Failure};
use crate::show;
use api::pb::{Proxy, Rejected};

pub(super) async fn run(common: &Common) -> Result<Exit, Failure> {
    let mut daemon = common.connect().await?;
    let proxies = super::status::ask(&mut daemon).await?.proxies;
    let found: Vec<Found> = proxies.into_iter().flat_map(of).collect();
    show::answer(common.output, &found, |found| people(found))?;
    Ok(Exit::Done)
}

/// One thing that one proxy refuses.
#[derive(serde::Serialize)]
struct Found {
    proxy: String,
    group: String,
    #[serde(flatten)]
    rejected: Rejected,
}

fn of(proxy: Proxy) -> impl Iterator<Item = Found> {
    let Proxy { id, group, rejected, .. } = proxy;
    rejected.into_iter().map(move |rejected| Found { proxy: id.clone(), group: group.clone(), rejected })
}

fn people(found: &[Found]) -> String {
    let rows = found.iter().map(|Found { proxy, group, rejected }| {
        let Rejected { type_url, name, field, reason, version } = rejected;
        let kind = type_url.rsplit('.').next().unwrap_or_default();
        let resource = format!("{} {name}", kind.to_lowercase());
        vec![proxy.clone(), group.clone(), version.clone(), resource, field.clone(), reason.clone()]
    });
    show::table(
        &["proxy", "group", "version", "resource", "field", "reason"],
        rows.collect(),
        "no proxy refuses anything",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_line_that_names_resource_field_and_reason() {
        let rejected = Rejected {
            type_url: "type.googleapis.com/envoy.config.listener.v3.Listener".to_owned(),
            name: "in".to_owned(),
            field: "filter_chains[0]".to_owned(),
            reason: "secret x is not there yet".to_owned(),
            version: "7".to_owned(),
        };
        let proxy =
            Proxy { id: "p1".to_owned(), group: "cart".to_owned(), rejected: vec![rejected], ..Proxy::default() };
        let found: Vec<Found> = of(proxy).collect();
        let shown = people(&found);
        assert!(
            shown.ends_with("p1     cart   7        listener in  filter_chains[0]  secret x is not there yet\n"),
            "{shown}"
        );
        let object = serde_json::to_value(&found[0]).unwrap();
        assert_eq!((&object["proxy"], &object["name"]), (&"p1".into(), &"in".into()));
        assert_eq!(people(&[]), "no proxy refuses anything\n");
    }
}
