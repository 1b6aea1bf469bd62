use super::*;

fn config(folder: &Path, text: &str) -> RouterConfig {
    let file = folder.join("pgbraid.toml");
    fs::write(&file, text).unwrap();
    RouterConfig::load(&file).unwrap()
}

#[test]
fn the_password_comes_from_the_variable_then_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pw");
    fs::write(&file, "s3cret \n").unwrap();
    let postgres = config(folder.path(), "postgres.password_file = 'pw'").postgres;
    assert_eq!(postgres.password_file.as_deref(), Some(file.as_path()));

    let variable = |value: &str| Some(OsString::from(value));
    let given = |value| postgres.password_given(value).unwrap();
    assert_eq!(given(variable("env")).as_deref(), Some("env"));
    assert_eq!(given(variable("")).as_deref(), Some("s3cret "));
    assert_eq!(given(None).as_deref(), Some("s3cret "));
    assert!(!format!("{postgres:?}").contains("s3cret"));

    let none = config(folder.path(), "").postgres;
    assert_eq!(none.password_given(None).unwrap(), None);
}

#[test]
fn only_one_newline_is_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pw");
    for (text, password) in [("a", "a"), ("a\n\n", "a\n"), ("a\r\n", "a"), (" a", " a")] {
        fs::write(&file, text).unwrap();
        assert_eq!(read_line(&file, "x").unwrap(), password);
    }
}

#[test]
fn unusable_secrets_are_refused_without_being_shown() {
    let folder = tempfile::tempdir().unwrap();
    let text = "postgres.password_file = 'pw'\ngrpc.token_file = 'token'";
    let config = config(folder.path(), text);
    let missing = config
        .postgres
        .password_given(None)
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("pw (postgres.password_file): No such file"),
        "{missing}"
    );
    fs::write(folder.path().join("pw"), "\n").unwrap();
    let empty = config.postgres.password_given(None).unwrap_err();
    assert_eq!(
        empty.message(),
        "postgres.password_file is empty: put the secret there, or remove the key"
    );
    fs::write(folder.path().join("pw"), "hunter2\0").unwrap();
    let nul = config
        .postgres
        .password_given(None)
        .unwrap_err()
        .to_string();
    assert!(nul.ends_with("has a NUL byte, and a password cannot") && !nul.contains("hunter2"));
    fs::write(folder.path().join("token"), "hunter 2").unwrap();
    let token = config.grpc.token().unwrap_err().to_string();
    assert!(token.contains("printable ASCII") && !token.contains("hunter"));
    fs::write(folder.path().join("token"), "abc\n").unwrap();
    assert_eq!(config.grpc.token().unwrap().as_deref(), Some("abc"));
}

#[test]
fn named_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let text = "schema = ['a.sql', 'b.sql']\ngrpc.tls = { cert = 'c', key = 'k', client_ca = 'a' }";
    let config = config(folder.path(), text);
    let tls = config.grpc.tls.clone().unwrap();
    assert!(tls.read().is_err());
    for name in ["a.sql", "b.sql", "c", "k", "a"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    let schema = config.read_schema().unwrap();
    let sql: Vec<_> = schema.iter().map(|file| file.sql.as_str()).collect();
    assert_eq!(sql, ["a.sql", "b.sql"]);
    let pem = tls.read().unwrap();
    assert_eq!(pem.key, b"k");
    assert_eq!(format!("{pem:?}"), "TlsPem { .. }");
    assert_eq!(config.postgres.ssl_root_pem().unwrap(), None);
}
