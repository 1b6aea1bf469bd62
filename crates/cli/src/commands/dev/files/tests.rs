use super::*;

fn plan(schema: &str) -> Plan {
    let existing = Existing {
        schema: Some(schema.to_owned()),
        ..Existing::default()
    };
    Plan::make(&Wish::default(), &existing).unwrap()
}

#[test]
fn what_we_write_is_valid() {
    let plan = plan(DEMO_SCHEMA);
    let config = RouterConfig::parse(&marked("#", &plan.config()), "pgbraid.toml").unwrap();
    let ports = [("db0".to_owned(), 1000), ("db1".to_owned(), 1001)];
    let map = ShardMap::parse(&marked("#", &plan.map(&ports)), "shardmap.toml").unwrap();
    config.check_map(&map).unwrap();
    assert_eq!(map.feeds.values().next().unwrap().tables, 64);
    assert_eq!(map.instances.len(), 2);
}

#[test]
fn a_parent_elsewhere_is_named() {
    let existing = Existing {
        schema: Some("create table \"Sales\".\"Wide \"\"one\" (id int8)".into()),
        ..Existing::default()
    };
    let wish = Wish {
        feed: Some("orders"),
        ..Wish::default()
    };
    let plan = Plan::make(&wish, &existing).unwrap();
    let config = RouterConfig::parse(&plan.config(), "pgbraid.toml").unwrap();
    let table = config.feed(&plan.feed).table;
    assert_eq!(
        (table.schema.as_str(), table.name.as_str()),
        ("Sales", "Wide \"one")
    );
    assert!(
        Plan::make(&Wish::default(), &existing).is_err(),
        "no name for a feed"
    );
}

#[test]
fn what_was_asked_for_before_stays() {
    let existing = Existing {
        changes: false,
        schema: Some(DEMO_SCHEMA.into()),
        feed: Some((FeedName::parse("orders").unwrap(), 16)),
        ports: Some((1, 2)),
        instances: Some(3),
    };
    let plan = Plan::make(&Wish::default(), &existing).unwrap();
    assert_eq!((plan.tables, plan.grpc_port, plan.http_port), (16, 1, 2));
}

#[test]
fn changes_are_noticed() {
    let text = marked("#", "a = 1\n");
    assert!(is_ours(&text));
    assert_eq!(unmarked(&text), "a = 1\n");
    assert!(!is_ours(&format!("{text}b = 2\n")));
    assert!(!is_ours("a = 1\n"));
    assert!(!is_ours(""));
}

#[test]
fn only_ports_change_in_a_map_that_was_edited() {
    let text = "# mine\n[instances.db0]\nhost = \"127.0.0.1\"\nport = 5 # five\nweight = 2\n\
                [instances.db1]\nhost = \"pg1\"\nport = 6\n\
                [instances.db2]\nhost = \"127.0.0.1\"\n";
    let ports = [0, 1, 2, 3].map(|i| (format!("db{i}"), 7000 + i));
    let changed = with_ports(text, &ports).unwrap();
    let expected = text.replace("port = 5 #", "port = 7000 #") + "port = 7002\n";
    assert_eq!(changed, expected);
}

#[test]
fn files_of_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG);
    assert!(write_if_ours(&path, "#", "a = 1\n").unwrap());
    assert!(write_if_ours(&path, "#", "a = 2\n").unwrap());
    fs::write(&path, "a = 3\n").unwrap();
    assert!(!write_if_ours(&path, "#", "a = 4\n").unwrap());
    assert_eq!(
        remove_unchanged(dir.path()).unwrap(),
        std::slice::from_ref(&path)
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "a = 3\n");
}
