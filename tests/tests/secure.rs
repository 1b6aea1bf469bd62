//! TLS and tokens.

use pgbraid_proto::v1::{self, admin_client::AdminClient};
use pgbraid_tests::{Cluster, ClusterOptions, run};
use tonic::{
    Code, Request,
    transport::{Certificate, Channel, ClientTlsConfig},
};

/// Makes a certificate for 127.0.0.1 that signs itself.
fn certificate(cluster: &Cluster) -> String {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
    std::fs::write(cluster.path("tls.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(cluster.path("tls.crt"), made.cert.pem()).unwrap();
    made.cert.pem()
}

#[tokio::test]
async fn tls_and_token_are_needed_where_they_are_set() {
    let cluster = Cluster::start(ClusterOptions {
        config: "[grpc]\ntoken_file = \"token\"\ntls = { cert = \"tls.crt\", key = \"tls.key\" }"
            .into(),
        ..ClusterOptions::default()
    })
    .await;
    let root = certificate(&cluster);
    std::fs::write(cluster.path("token"), "let-me-in\n").unwrap();
    let router = cluster.router();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(root))
        .domain_name("localhost");
    let channel = Channel::from_shared(format!("https://{}", router.grpc))
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut admin = AdminClient::new(channel);
    let refused = admin.get_status(v1::GetStatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("Bearer"), "{refused}");
    for (token, code) in [
        ("Bearer wrong", Code::Unauthenticated),
        ("Bearer let-me-in", Code::Ok),
    ] {
        let mut request = Request::new(v1::GetStatusRequest {});
        request
            .metadata_mut()
            .insert("authorization", token.parse().unwrap());
        let answer = admin.get_status(request).await;
        assert_eq!(answer.err().map_or(Code::Ok, |status| status.code()), code);
    }
    let plain = Channel::from_shared(format!("http://{}", router.grpc)).unwrap();
    let plain = match plain.connect().await {
        Ok(channel) => AdminClient::new(channel)
            .get_status(v1::GetStatusRequest {})
            .await
            .is_ok(),
        Err(_) => false,
    };
    assert!(!plain, "a router with TLS must not answer without");
    assert!(!router.log().contains("let-me-in"));
}

#[tokio::test]
async fn plaintext_on_other_addresses_has_to_be_asked_for() {
    let cluster = Cluster::start_bare(&ClusterOptions {
        instances: 1,
        config: "[grpc]\nlisten = \"0.0.0.0:0\"".into(),
        ..ClusterOptions::default()
    })
    .await;
    let checked = run(&["check", "--config", cluster.config().to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(1));
    let message = String::from_utf8_lossy(&checked.stderr).into_owned()
        + &String::from_utf8_lossy(&checked.stdout);
    assert!(message.contains("allow_plaintext"), "{message}");
}
