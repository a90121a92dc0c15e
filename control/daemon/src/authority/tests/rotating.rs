//! Another root: each step waits for those that the next one would leave behind.

use super::*;

/// The next step is done.
async fn step(place: &Place, wanted: Stage) {
    assert_eq!(place.authority.rotate(false, NOW_MS).await, Ok(Step::Done(wanted)));
}

async fn waits_for(place: &Place, proxies: &[&str], operators: &[&str]) {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let waits = Step::Waits { proxies: owned(proxies), operators: owned(operators) };
    assert_eq!(place.authority.rotate(false, NOW_MS).await, Ok(waits));
}

/// A proxy renews, and is seen with what it got.
async fn renewed(place: &Place, id: &str) -> Issued {
    let issued = place.authority.renew(id, &request(&[]).1, None, NOW_MS).await.unwrap();
    place.authority.caller(&peer(&issued.chain), NOW_MS).await.unwrap();
    issued
}

#[tokio::test]
async fn roots_change_step_by_step_while_everybody_comes_along() {
    let place = Place::new().await;
    let authority = &place.authority;
    let (first, _) = place.proxy().await;
    let (second, _) = place.proxy().await;
    let (one, two) = (first.proxy.id.clone(), second.proxy.id.clone());
    let mut both = [one.as_str(), two.as_str()];
    both.sort();
    let old = authority.bundle();
    let own = || authority.own_certificate("shop", &[], NOW_MS).unwrap().0;
    let verifies = |chain: &str, roots: &str| verified(chain, roots, NOW_MS, "sslserver").is_ok();
    assert_eq!(authority.stage(), Stage::Steady);

    step(&place, Stage::Trusting).await;
    let mixed = authority.bundle();
    let new = mixed.strip_prefix(&old).expect("the old root, then the new").to_owned();
    assert!(!new.is_empty());
    assert!(verifies(&own(), &old), "the daemon's own certificate changed too early");
    waits_for(&place, &both, &[]).await;
    // An answer that got lost proves nothing; who was seen with it has it.
    let lost = authority.renew(&one, &request(&[]).1, None, NOW_MS).await.unwrap();
    waits_for(&place, &both, &[]).await;
    assert!(authority.wants_renewal(&authority.proxy(&one).await.unwrap().unwrap()));
    authority.caller(&peer(&lost.chain), NOW_MS).await.unwrap();
    assert!(!authority.wants_renewal(&authority.proxy(&one).await.unwrap().unwrap()));
    waits_for(&place, &[&two], &[]).await;
    // The other tells it in its report.
    let issued = authority.renew(&two, &request(&[]).1, None, NOW_MS + 5000).await.unwrap();
    assert!(verifies(&issued.chain, &old), "issued from the new root too early");
    authority.saw_ending(&issued.proxy, issued.not_after_ms).await.unwrap();

    step(&place, Stage::Issuing).await;
    assert!(verifies(&own(), &old) && !verifies(&own(), &new));
    let (joined, _) = place.proxy().await;
    assert!(verifies(&joined.chain, &new) && !verifies(&joined.chain, &old));
    assert_eq!(joined.bundle, mixed);

    step(&place, Stage::Serving).await;
    assert!(verifies(&own(), &new) && !verifies(&own(), &old));
    waits_for(&place, &both, &[]).await;
    renewed(&place, &one).await;
    waits_for(&place, &[&two], &[]).await;
    // One that is absent and does not come back is dropped.
    authority.forget(&two).await.unwrap();

    step(&place, Stage::Steady).await;
    assert_eq!(authority.bundle(), new);
    let last = renewed(&place, &one).await;
    assert_eq!(last.bundle, new);
    assert!(verifies(&last.chain, &new));
}

#[tokio::test]
async fn operators_are_waited_for_and_force_leaves_who_is_late_behind() {
    let place = Place::new().await;
    let authority = &place.authority;
    let (issued, _) = place.proxy().await;
    authority.create_operator("bob", Role::Read, &request(&[]).1, "", "shop", NOW_MS).await.unwrap();
    step(&place, Stage::Trusting).await;
    waits_for(&place, &[&issued.proxy.id], &["bob"]).await;
    assert_eq!(authority.rotate(true, NOW_MS).await, Ok(Step::Done(Stage::Issuing)));
    step(&place, Stage::Serving).await;
    waits_for(&place, &[&issued.proxy.id], &["bob"]).await;
    assert_eq!(authority.rotate(true, NOW_MS).await, Ok(Step::Done(Stage::Steady)));
}

#[tokio::test]
async fn who_cannot_come_back_is_not_waited_for() {
    let place = Place::new().await;
    place.proxy().await;
    let later_ms = NOW_MS + 9 * 24 * HOUR_MS;
    let stages = [Stage::Trusting, Stage::Issuing, Stage::Serving, Stage::Steady];
    for stage in stages {
        assert_eq!(place.authority.rotate(false, later_ms).await, Ok(Step::Done(stage)));
    }
}

#[tokio::test]
async fn a_change_of_roots_goes_on_after_a_restart_and_on_another_daemon() {
    let place = Place::new().await;
    step(&place, Stage::Trusting).await;
    let second = Authority::open(place.store.clone(), &source(place.folder.path()), None, NOW_MS).await.unwrap();
    assert_eq!(second.bundle(), place.authority.bundle());
    assert_eq!(second.rotate(false, NOW_MS).await, Ok(Step::Done(Stage::Issuing)));
    // The first hears of it when it looks.
    let mut changes = place.authority.changes();
    changes.mark_unchanged();
    assert_eq!(place.authority.refresh(NOW_MS).await, Ok(2));
    assert!(changes.has_changed().unwrap());
    assert_eq!(place.authority.stage(), Stage::Issuing);
    // What one issues, the other's roots verify.
    let (issued, _) = place.proxy().await;
    assert_eq!(verified(&issued.chain, &second.bundle(), NOW_MS, "sslclient"), Ok(()));
}
