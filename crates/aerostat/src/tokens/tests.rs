//! What tokens allow, and that nothing makes one wider.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use types::token::{Scope, Verb};

use super::*;

fn scope(orgs: &[&str], apps: &[&str], verbs: &[Verb]) -> Scope {
    Scope {
        orgs: orgs.iter().map(|org| org.parse().unwrap()).collect(),
        apps: apps.iter().map(|app| app.parse().unwrap()).collect(),
        verbs: verbs.to_vec(),
        ..Scope::default()
    }
}

fn app<'a>(verb: Verb, app: &'a str) -> Access<'a> {
    Access::To(Target {
        verb,
        org: Some("personal"),
        app: Some(app),
        machine: None,
    })
}

fn verified(root: &RootKey, token: &str) -> Result<Verified, TokenError> {
    Verified::of(token, |id| (id == root.id()).then(|| root.public()))
}

fn now() -> Timestamp {
    "2026-07-01T12:00:00Z".parse().unwrap()
}

#[test]
fn a_token_allows_what_its_scope_says_and_nothing_else() {
    let root = RootKey::generate();
    let text = root
        .mint(
            "01T",
            "deploy",
            &scope(&["personal"], &["web"], &[Verb::Read, Verb::Write]),
        )
        .unwrap();
    assert!(text.starts_with("aero_"), "{text}");
    let token = verified(&root, &text).unwrap();
    assert_eq!((token.id(), token.name()), ("01T", "deploy"));
    assert_eq!(token.allow(app(Verb::Read, "web"), now()), Ok(()));
    assert_eq!(token.allow(app(Verb::Write, "web"), now()), Ok(()));
    assert_eq!(token.allow(Access::Platform, now()), Ok(()));
    for (access, missing) in [
        (app(Verb::Exec, "web"), "verb("),
        (app(Verb::Read, "db"), "app("),
        (Access::To(Target::fleet(Verb::Read)), "org("),
    ] {
        let Err(Denied::Missing { wanted, check }) = token.allow(access, now()) else {
            panic!("{access}");
        };
        assert_eq!(wanted, access.to_string());
        assert!(check.contains(missing), "{check}");
    }
}

#[test]
fn an_expired_token_says_when_it_expired() {
    let root = RootKey::generate();
    let at = now() + SignedDuration::from_secs(60);
    let short = Scope {
        expires_at: Some(at),
        ..Scope::default()
    };
    let token = verified(&root, &root.mint("1", "", &short).unwrap()).unwrap();
    assert_eq!(token.allow(Access::Platform, at), Ok(()));
    let later = at + SignedDuration::from_secs(1);
    let expired = Err(Denied::Expired { at });
    assert_eq!(token.allow(Access::Platform, later), expired);
    assert_eq!(token.allow(app(Verb::Read, "web"), later), expired);
}

#[test]
fn whoever_holds_a_token_can_make_a_narrower_one_without_any_key() {
    let root = RootKey::generate();
    let wide = root.mint("1", "", &scope(&["personal"], &[], &[])).unwrap();
    let narrow = attenuate(&wide, &scope(&[], &["web"], &[Verb::Read])).unwrap();
    let token = verified(&root, &narrow).unwrap();
    assert_eq!(token.allow(app(Verb::Read, "web"), now()), Ok(()));
    assert!(token.allow(app(Verb::Write, "web"), now()).is_err());
    assert!(token.allow(app(Verb::Read, "db"), now()).is_err());
    // It is still the first one's child: revoking that is enough.
    let wide = verified(&root, &wide).unwrap();
    let ids: Vec<&str> = token.revocation_ids().collect();
    assert!(wide.revocation_ids().all(|id| ids.contains(&id)));
    // A block cannot widen, not even by saying what a request would.
    let wider = attenuate(&narrow, &scope(&["personal"], &["web", "db"], &[])).unwrap();
    let token = verified(&root, &wider).unwrap();
    assert!(token.allow(app(Verb::Read, "db"), now()).is_err());
}

#[test]
fn facts_of_a_later_block_do_not_count_for_the_earlier_ones() {
    let root = RootKey::generate();
    let narrow = root
        .mint("1", "", &scope(&["personal"], &["web"], &[Verb::Read]))
        .unwrap();
    let body = narrow.strip_prefix("aero_").unwrap();
    let cheat = biscuit_auth::BlockBuilder::new()
        .code(r#"scope("platform"); app("web"); verb("read"); org("personal"); token("2");"#)
        .unwrap();
    let forged = biscuit_auth::UnverifiedBiscuit::from_base64(body).unwrap();
    let forged = forged.append(cheat).unwrap().to_base64().unwrap();
    let token = verified(&root, &forged).unwrap();
    assert_eq!(token.id(), "1");
    assert!(token.allow(app(Verb::Write, "db"), now()).is_err());
    assert!(
        token
            .allow(Access::To(Target::fleet(Verb::Admin)), now())
            .is_err()
    );
}

#[test]
fn only_tokens_of_the_fleet_s_key_count() {
    let (root, other) = (RootKey::generate(), RootKey::generate());
    let text = other.mint("1", "", &Scope::default()).unwrap();
    assert_eq!(verified(&root, &text).unwrap_err(), TokenError::UnknownKey);
    let lying = Verified::of(&text, |_| Some(root.public()));
    assert_eq!(lying.unwrap_err(), TokenError::Signature);
    for text in ["", "aero_", "x", "fm2_abc", "aero_!!!!", "00112233"] {
        let error = verified(&root, text).unwrap_err();
        assert!(
            matches!(error, TokenError::Malformed { .. }),
            "{text}: {error}"
        );
    }
    let long = "a".repeat(100_000);
    assert!(matches!(
        verified(&root, &long),
        Err(TokenError::TooLong { .. })
    ));
}

#[test]
fn blocks_have_an_end() {
    let root = RootKey::generate();
    let mut token = root.mint("1", "", &Scope::default()).unwrap();
    for _ in 1..text::BLOCKS_MAX {
        token = attenuate(&token, &Scope::default()).unwrap();
    }
    let one_more = attenuate(&token, &Scope::default());
    assert!(matches!(one_more, Err(TokenError::TooManyBlocks { .. })));
    assert!(verified(&root, &token).is_ok());
}

#[test]
fn the_key_is_made_once_and_is_root_s_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens").join("root.key");
    let first = RootKey::open(&path).unwrap();
    let again = RootKey::open(&path).unwrap();
    assert_eq!((first.id(), first.public()), (again.id(), again.public()));
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        RootKey::open(&path),
        Err(RootKeyError::TooOpen { .. })
    ));
    std::fs::write(&path, "nonsense").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(
        RootKey::open(&path),
        Err(RootKeyError::Malformed { .. })
    ));
    assert!(!format!("{first:?}").contains(&first.public().0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_token_with_a_changed_bit_is_no_token(at in 0usize..10_000, bit in 0u8..8) {
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::URL_SAFE;
        let root = fixed();
        let bytes = engine.decode(body()).unwrap();
        let mut changed = bytes.clone();
        let at = at % changed.len();
        changed[at] ^= 1 << bit;
        let token = Verified::of(&engine.encode(&changed), |_| Some(root.public()));
        // A bit of the key id alone leads to the same key here, and to none of a fleet.
        if let Ok(token) = token {
            prop_assert_eq!(token.allow(app(Verb::Write, "db"), now()).is_err(), true);
        }
    }

    #[test]
    fn blocks_only_ever_take_away(
        orgs in 0usize..3, apps in 0usize..3, verbs in 0usize..5, asked in 0usize..5,
    ) {
        let root = fixed();
        let narrower = scope(&["personal", "team"][..orgs.min(2)], &["web", "db"][..apps.min(2)], &Verb::ALL[..verbs]);
        let before = verified(root, body()).unwrap();
        let after = attenuate(body(), &narrower).unwrap();
        let after = verified(root, &after).unwrap();
        for name in ["web", "db", "other"] {
            let access = app(Verb::ALL[asked], name);
            if after.allow(access, now()).is_ok() {
                prop_assert!(before.allow(access, now()).is_ok());
            }
        }
    }
}

fn fixed() -> &'static RootKey {
    static ROOT: std::sync::OnceLock<RootKey> = std::sync::OnceLock::new();
    ROOT.get_or_init(RootKey::generate)
}

/// A token of [`fixed`] for one app, without its prefix.
fn body() -> &'static str {
    static TOKEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let text = TOKEN.get_or_init(|| {
        let narrow = scope(&["personal"], &["web"], &[Verb::Read, Verb::Write]);
        fixed().mint("1", "", &narrow).unwrap()
    });
    text.strip_prefix("aero_").unwrap()
}
