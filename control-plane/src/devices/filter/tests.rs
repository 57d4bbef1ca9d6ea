//! Filters: what they mean, what is wrong with them, and that memory and database agree.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use sqlx::Row as _;

use super::super::device::{DesiredModel, Slot};
use super::super::store::devices::{NewDevice, Reported};
use super::super::store::{devices, pairs};
use super::*;
use crate::bus::DeviceId;
use crate::db::Tx;
use crate::testing::{START_US, TestApp};

fn facts() -> Facts {
    let slot = |status: &str, digest: Option<&str>, version| SlotFacts {
        status: status.to_owned(),
        digest: digest.map(str::to_owned),
        version,
    };
    let map =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Facts {
        id: "pump-7".to_owned(),
        fleet: "factory".to_owned(),
        hardware: "cortex-m7".to_owned(),
        agent_version: Some("0.10.0".to_owned()),
        last_seen_us: Some(START_US - 30 * 60 * 1_000_000),
        created_us: START_US - 86_400_000_000,
        blocked: false,
        connected: true,
        tags: map(&[("region", "eu"), ("rack", "12"), ("site.floor", "2nd *")]),
        attributes: map(&[("ram_kib", "320")]),
        desired: BTreeMap::from([("kws".to_owned(), slot("", Some("ff00"), Some(3)))]),
        slots: BTreeMap::from([
            ("kws".to_owned(), slot("running", Some("ab12"), Some(2))),
            ("odd".to_owned(), slot("trial", Some("cd34"), None)),
            ("spare".to_owned(), slot("empty", None, None)),
        ]),
    }
}

#[test]
fn filters_mean_what_they_say() {
    let device = facts();
    for (text, expected) in [
        (r#"tags.region == "eu" and hardware == "cortex-m7" and running.kws < 3"#, true),
        (r#"tags.region == 'eu' && running.kws >= 3"#, false),
        (r#"tags.region in ["us", "eu"]"#, true),
        (r#"tags.region not in ["us", "eu"]"#, false),
        // A device without the value: comparisons are false, their opposites true.
        (r#"tags.color == "red""#, false),
        (r#"tags.color != "red""#, true),
        (r#"tags.color not in ["red"]"#, true),
        ("has(tags.color)", false),
        ("not has(tags.color)", true),
        ("tags.rack > 2", true),
        ("tags.region > 2", false),
        (r#"tags.rack == "12""#, true),
        ("tags.rack == 12.0", true),
        (r#"tags.site.floor matches "2nd ?""#, true),
        (r#"tags.site.floor matches "*\*""#, true),
        (r#"tags.site.floor matches "2nd \?""#, false),
        (r#"id matches "pump-*""#, true),
        (r#"id matches "PUMP-*""#, false),
        (r#"tags."region" == "eu""#, true),
        ("attributes.ram_kib < 512 or blocked", true),
        ("blocked or not connected", false),
        ("connected == true and blocked != true", true),
        (r#"agent_version >= "0.9""#, true),
        (r#"agent_version == "0.10.0""#, true),
        ("last_seen > now - 1h", true),
        ("last_seen > now - 10m", false),
        (r#"last_seen < "2026-01-01T00:00:00Z""#, true),
        ("created <= now - 1d and created > now - 2d", true),
        (r#"running.kws == "ab12" and status.kws == "running""#, true),
        ("has(running.odd) and not running.odd == 1 and running.odd != 1", true),
        ("has(running.spare)", false),
        ("has(status.spare)", true),
        ("desired.kws == 3 and running.kws != 3", true),
        ("running.kws in [1, 2]", true),
        ("not not connected", true),
        ("!(blocked || fleet == \"x\") && (true_flag.x == 1 or connected)", false),
    ] {
        match Filter::parse(text) {
            Ok(filter) => {
                assert_eq!(filter.matches(&device, START_US), expected, "{text}");
                let again = filter.to_string();
                assert_eq!(Filter::parse(&again).as_ref(), Ok(&filter), "{text} -> {again}");
            }
            Err(error) => assert!(text.contains("true_flag"), "{error}"),
        }
    }
}

#[test]
fn errors_show_the_place_and_the_way_out() {
    let error = |text: &str| Filter::parse(text).expect_err(text).to_string();
    assert_eq!(
        error(r#"fleet == "a" and hardwear == "m7""#),
        "there is no field \"hardwear\" (column 18)\n  fleet == \"a\" and hardwear == \"m7\"\n                   ^^^^^^^^ \
         did you mean \"hardware\"?"
    );
    for (text, message) in [
        ("", "the filter is empty"),
        ("fleet = \"a\"", "equality is written =="),
        ("fleet == a", "texts need quotes: \"a\""),
        ("fleet == \"a\" ad blocked", "did you mean \"and\"?"),
        ("fleet == \"a\" blocked", "\"and\", \"or\" or the end was expected here"),
        ("(blocked", "\")\" was expected here"),
        ("blocked)", "there is no \"(\" for this \")\""),
        ("fleet == \"a", "closing quote is missing"),
        ("fleet < \"a\"", "fleet has no order"),
        ("fleet == 3", "fleet is compared with a text in quotes, and this is a number"),
        ("tags == \"a\"", "tags needs a name, as in tags.region"),
        ("tags. == 1", "a name must follow \"tags.\""),
        ("fleet.x == \"a\"", "fleet has no parts"),
        ("tags.a < \"b\"", "compares numbers, and this is a text"),
        ("last_seen == now", "compared with <, <=, > or >="),
        ("last_seen > 5m", "times are written like now - 1h"),
        ("last_seen > now - 5", "durations look like"),
        ("last_seen > now - 5y", "neither a number nor a duration"),
        ("last_seen > \"yesterday\"", "this is not a point in time"),
        ("last_seen in [now]", "\"in\" cannot be used with last_seen"),
        ("tags.a in []", "the list is empty"),
        ("tags.a in [1, 2", "\",\" or \"]\" was expected here"),
        ("tags.a not like 3", "\"in\" was expected after \"not\""),
        ("tags.a matches 3", "a pattern in quotes was expected here"),
        ("hardware", "has(hardware)"),
        ("agent_version > \"new\"", "this is not a version"),
        ("blocked == 1", "blocked is compared with true or false"),
        ("tags.a == 1e999", "too large"),
        ("tags.a == \"\0\"", "U+0000"),
        ("last_seen > now - 99999w", "longer than 100 years"),
        ("fleet ~ \"a\"", "patterns are written"),
        ("now > last_seen", "there is no field \"now\""),
    ] {
        let shown = error(text);
        assert!(shown.contains(message), "{text:?} gives\n{shown}\nwithout {message:?}");
    }
    assert!(error(&format!("{}blocked", "not ".repeat(MAX_DEPTH + 1))).contains("nested more than"));
    assert!(error(&"blocked or ".repeat(MAX_TERMS + 1)).contains("more than 256 comparisons"));
    assert!(error(&" ".repeat(MAX_BYTES + 1)).contains("4096 are allowed"));
    assert!(
        error(&format!("fleet == \"{}\"", "x".repeat(MAX_TEXT_CHARS + 1)))
            .contains("more than 256 characters")
    );
    let second_line = Filter::parse("blocked or\n  ünknown == 1").expect_err("an error");
    assert_eq!(second_line.place, 13..14);
}

#[test]
fn patterns_do_not_blow_up() {
    let text = "a".repeat(256);
    assert!(!eval::glob(&format!("{}b", "*a".repeat(120)), &text));
    assert!(eval::glob(&"*a".repeat(120), &text));
    assert!(eval::glob("", "") && eval::glob("**", "") && !eval::glob("?", "") && eval::glob("a\\", "a\\"));
}

// Few names and values, so that filters and devices meet.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "kws", "x-1"]).prop_map(str::to_owned)
}

fn text() -> impl Strategy<Value = String> {
    let texts = vec![
        "", "a", "b", "A", "3", "2.5", "-1", "1e3", "nan", "a*", "a%b", "a_b", "a?b", "[a]", "ä\\", "0.10.0",
        "0.9",
    ];
    prop::sample::select(texts).prop_map(str::to_owned)
}

fn number() -> impl Strategy<Value = f64> {
    prop::sample::select(vec![0.0, 1.0, 2.0, 2.5, 3.0, -1.0, 1000.0])
}

fn slot() -> impl Strategy<Value = SlotFacts> {
    (
        prop::sample::select(vec!["empty", "running", "trial", "failed"]),
        prop::option::of(text()),
        prop::option::of(0_i64..4),
    )
        .prop_map(|(status, digest, version)| SlotFacts {
            status: status.to_owned(),
            version: version.filter(|_| digest.is_some()),
            digest,
        })
}

prop_compose! {
    fn device()(
        fleet in prop::sample::select(vec!["f1", "f2"]),
        hardware in name(),
        agent_version in prop::option::of(prop::sample::select(vec!["0.9.0", "0.10.0", "1", "dev"])),
        seen_s in prop::option::of(-7200_i64..10),
        blocked in any::<bool>(),
        connected in any::<bool>(),
        tags in btree_map(name(), text(), 0..3),
        attributes in btree_map(name(), text(), 0..3),
        desired in btree_map(name(), (text(), 0_i64..4), 0..2),
        slots in btree_map(name(), slot(), 0..3),
    ) -> Facts {
        let desired = desired.into_iter().map(|(name, (digest, version))| {
            (name, SlotFacts { status: String::new(), digest: Some(digest), version: Some(version) })
        });
        Facts {
            id: String::new(),
            fleet: fleet.to_owned(),
            hardware,
            agent_version: agent_version.map(str::to_owned),
            last_seen_us: seen_s.map(|s| START_US + s * 1_000_000),
            created_us: START_US,
            blocked,
            connected,
            tags,
            attributes,
            desired: desired.collect(),
            slots,
        }
    }
}

fn op() -> impl Strategy<Value = CompareOp> {
    prop::sample::select(CompareOp::ALL.map(|(_, op)| op).to_vec())
}

fn equality() -> impl Strategy<Value = CompareOp> {
    prop::sample::select(vec![CompareOp::Eq, CompareOp::Ne])
}

fn text_field() -> impl Strategy<Value = Field> {
    prop_oneof![
        Just(Field::Id),
        Just(Field::Fleet),
        Just(Field::Hardware),
        Just(Field::AgentVersion),
        name().prop_map(Field::Tag),
        name().prop_map(Field::Attribute),
        name().prop_map(Field::Running),
        name().prop_map(Field::Desired),
        name().prop_map(Field::Status),
    ]
}

fn number_field() -> impl Strategy<Value = Field> {
    prop_oneof![
        name().prop_map(Field::Tag),
        name().prop_map(Field::Attribute),
        name().prop_map(Field::Running),
        name().prop_map(Field::Desired),
    ]
}

fn instant() -> impl Strategy<Value = Literal> {
    prop_oneof![
        (-7200_i64..10).prop_map(|s| Literal::Time(Instant::FromNow(s))),
        (-7200_i64..10).prop_map(|s| Literal::Time(Instant::At(START_US + s * 1_000_000))),
    ]
}

fn filter() -> impl Strategy<Value = Filter> {
    let order = op().prop_filter("an order", |op| !matches!(op, CompareOp::Eq | CompareOp::Ne));
    let times = prop::sample::select(vec![Field::LastSeen, Field::Created]);
    let flags = prop::sample::select(vec![Field::Blocked, Field::Connected]);
    let leaf = prop_oneof![
        (text_field(), equality(), text()).prop_map(|(f, op, t)| Filter::Compare(f, op, Literal::Text(t))),
        (number_field(), op(), number()).prop_map(|(f, op, n)| Filter::Compare(f, op, Literal::Number(n))),
        (op(), prop::sample::select(vec!["0.9", "0.10.0", "2"])).prop_map(|(op, version)| {
            Filter::Compare(Field::AgentVersion, op, Literal::Text(version.to_owned()))
        }),
        (times, order, instant()).prop_map(|(f, op, time)| Filter::Compare(f, op, time)),
        (flags.clone(), equality(), any::<bool>()).prop_map(|(f, op, b)| Filter::Compare(
            f,
            op,
            Literal::Bool(b)
        )),
        (text_field(), vec(text().prop_map(Literal::Text), 1..4)).prop_map(|(f, list)| Filter::In(f, list)),
        (number_field(), vec(number().prop_map(Literal::Number), 1..4))
            .prop_map(|(f, list)| Filter::In(f, list)),
        (text_field(), prop_oneof![text(), "[ab*?\\\\\\[%_]{0,6}"]).prop_map(|(f, p)| Filter::Matches(f, p)),
        prop_oneof![text_field(), Just(Field::LastSeen), Just(Field::Blocked)].prop_map(Filter::Has),
        flags.prop_map(Filter::Flag),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 2..4).prop_map(Filter::And),
            vec(inner.clone(), 2..4).prop_map(Filter::Or),
            inner.prop_map(|filter| Filter::Not(Box::new(filter))),
        ]
    })
}

async fn insert(tx: &mut Tx, facts: &Facts) {
    let id = DeviceId::new(&facts.id).expect("an id");
    let new = NewDevice {
        id: &id,
        fleet: &facts.fleet,
        hardware: &facts.hardware,
        serial: None,
        claim: None,
        password_digest: None,
    };
    devices::insert(tx, &new, facts.created_us).await.expect("inserted");
    let tags = facts.tags.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    pairs::change(tx, pairs::Table::Tags, &facts.id, &tags).await.expect("tags");
    if let Some(agent_version) = &facts.agent_version {
        let slots = facts.slots.iter().map(|(name, slot)| {
            let slot = Slot {
                status: slot.status.clone(),
                digest: slot.digest.clone(),
                model: None,
                version: slot.version,
                reason: String::new(),
                changed_us: START_US,
            };
            (name.clone(), slot)
        });
        let reported = Reported {
            agent_version: agent_version.clone(),
            attributes: facts.attributes.clone(),
            slots: slots.collect(),
            ..Reported::default()
        };
        devices::write_reported(tx, &facts.id, &reported, START_US).await.expect("a state");
    }
    let desired = facts.desired.iter().map(|(slot, model)| {
        let model = DesiredModel {
            model: "m".to_owned(),
            version: model.version.unwrap_or(0),
            digest: model.digest.clone().unwrap_or_default(),
            size: 1,
            settings: BTreeMap::new(),
        };
        (slot.clone(), model)
    });
    devices::set_desired(tx, &facts.id, &desired.collect()).await.expect("desired");
    if let Some(us) = facts.last_seen_us {
        devices::write_seen(tx, std::slice::from_ref(&id), us).await.expect("seen");
    }
    if facts.blocked {
        devices::block(tx, &facts.id, Some((START_US, "test"))).await.expect("blocked");
    }
    if facts.connected {
        devices::write_presence(tx, "this", &[(id, true)], START_US).await.expect("connected");
    }
}

async fn select(tx: &mut Tx, test: &TestApp, filter: &Filter) -> Vec<String> {
    let context =
        SqlContext { dialect: test.app.db.dialect(), now_us: START_US, seen_is_connected_us: None, bound: 0 };
    let SqlFilter { sql, values } = filter.to_sql(&context);
    let sql = format!("select id from devices where {sql} order by id");
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).persistent(false);
    for value in values {
        query = match value {
            SqlValue::Text(text) => query.bind(text),
            SqlValue::Integer(integer) => query.bind(integer),
            SqlValue::Number(number) => query.bind(number),
        };
    }
    let rows = query.fetch_all(&mut **tx).await.unwrap_or_else(|error| panic!("{filter}: {error}"));
    rows.iter().map(|row| row.try_get(0).expect("an id")).collect()
}

/// Random devices and random filters: the database finds those that the filter fits in memory.
#[test]
fn memory_and_database_agree() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let test = runtime.block_on(async {
        let test = TestApp::new().await;
        for fleet in ["f1", "f2"] {
            test.post("/api/v1/fleets", serde_json::json!({ "id": fleet })).await.expect(201);
        }
        let mut tx = test.app.db.begin().await.expect("a transaction");
        devices::renew_endpoint(&mut tx, "this", START_US + 1).await.expect("an endpoint");
        tx.commit().await.expect("committed");
        test
    });
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(fleet in vec(device(), 1..6), filters in vec(filter(), 1..12))| {
        runtime.block_on(async {
            let mut fleet = fleet;
            let mut tx = test.app.db.begin().await.expect("a transaction");
            for (index, facts) in fleet.iter_mut().enumerate() {
                facts.id = ["a", "b", "A-1", "kws", "x"][index].to_owned();
                if facts.agent_version.is_none() {
                    // Attributes and slots come with the state that tells the agent's version.
                    facts.attributes.clear();
                    facts.slots.clear();
                }
                insert(&mut tx, facts).await;
            }
            fleet.sort_by(|a, b| a.id.cmp(&b.id));
            for filter in &filters {
                let mut found = select(&mut tx, &test, filter).await;
                found.sort();
                let expected: Vec<String> = fleet
                    .iter()
                    .filter(|facts| filter.matches(facts, START_US))
                    .map(|facts| facts.id.clone())
                    .collect();
                assert_eq!(found, expected, "{filter}\n{fleet:#?}");
                // Nothing of a case stays: the transaction is dropped.
            }
            tx.rollback().await.expect("undone");
        });
    });
}

proptest! {
    #[test]
    fn text_and_tree_agree(filter in filter()) {
        let text = filter.to_string();
        let again = Filter::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        prop_assert_eq!(again.to_string(), text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(\\PC|[a-z.=<>!&|\"'\\\\()\\[\\], 0-9+-]|tags\\.|has\\(|now|not |in |and ){0,40}") {
        if let Err(error) = Filter::parse(&text) {
            let _ = error.to_string();
        }
    }
}
