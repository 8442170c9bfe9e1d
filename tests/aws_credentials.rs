//! The AWS default credential chain, which is used without a key pair.

use crate::support::{Installation, Process, app::json, process::command};
use landfall_test_servers::{AwsServer, S3Server, wait_until};
use serde_json::Value;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
/// Timeout for a file to be stored.
const SOON: Duration = Duration::from_secs(60);

/// A bucket, and no key pair.
fn without_keys(s3: &S3Server) -> Installation {
    let mut installation = Installation::new();
    installation.store_in(s3);
    installation.unset_raw("AWS_ACCESS_KEY_ID");
    installation.unset_raw("AWS_SECRET_ACCESS_KEY");
    // The files of this machine, and an instance that it may be, must not count.
    let folder = installation.folder().to_owned();
    for (name, file) in [
        ("AWS_CONFIG_FILE", "no-config"),
        ("AWS_SHARED_CREDENTIALS_FILE", "no-credentials"),
    ] {
        installation.set_raw(name, &folder.join(file).display().to_string());
    }
    installation.set_raw("AWS_EC2_METADATA_DISABLED", "true");
    installation
}

/// Uses the metadata service of an instance.
fn on_an_instance(installation: &mut Installation, aws: &AwsServer) {
    installation.unset_raw("AWS_EC2_METADATA_DISABLED");
    installation.set_raw("AWS_EC2_METADATA_SERVICE_ENDPOINT", &aws.metadata_url());
}

async fn run(installation: &Installation, arguments: &[&str]) -> (bool, String, String) {
    let output = command(arguments, &installation.environment())
        .output()
        .await
        .expect("landfall starts");
    (
        output.status.success(),
        String::from_utf8(output.stdout).expect("text"),
        String::from_utf8(output.stderr).expect("text"),
    )
}

/// The result of `landfall check` for storage.
async fn storage_check(installation: &Installation) -> Value {
    let (migrated, _, errors) = run(installation, &["migrate", "up"]).await;
    assert!(migrated, "{errors}");
    let (_, told, errors) = run(installation, &["check", "--json"]).await;
    assert!(!(told.clone() + &errors).contains("temporary-"), "{told}");
    let checks: Vec<Value> = serde_json::from_str(&told)
        .unwrap_or_else(|error| panic!("not JSON ({error}): {told} {errors}"));
    let mut checks = checks.into_iter();
    let storage = checks.find(|check| check["name"] == "storage");
    storage.expect("storage is checked")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_source_is_used_and_named_with_its_expiry() {
    let s3 = S3Server::start().await;
    let aws = AwsServer::start(&s3, HOUR);
    let profile = |installation: &mut Installation| {
        let file = installation.folder().join("credentials");
        let text = format!(
            "[media]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            s3.access_key(),
            s3.secret_key()
        );
        std::fs::write(&file, text).expect("a file");
        installation.set_raw("AWS_SHARED_CREDENTIALS_FILE", &file.display().to_string());
        installation.set_raw("AWS_PROFILE", "media");
    };
    let web_identity = |installation: &mut Installation| {
        let file = installation.folder().join("token");
        std::fs::write(&file, "the-identity").expect("a file");
        installation.set_raw("AWS_WEB_IDENTITY_TOKEN_FILE", &file.display().to_string());
        installation.set_raw("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/landfall");
        installation.set_raw("AWS_ENDPOINT_URL_STS", &aws.sts_url());
    };
    let container = |installation: &mut Installation| {
        installation.set_raw("AWS_CONTAINER_CREDENTIALS_FULL_URI", &aws.container_url());
    };
    let instance = |installation: &mut Installation| on_an_instance(installation, &aws);
    type Source<'a> = (&'a dyn Fn(&mut Installation), &'a str, bool);
    let sources: [Source<'_>; 4] = [
        (&profile, "the shared profile", false),
        (&web_identity, "a web identity token", true),
        (&container, "the container (ECS or EKS)", true),
        (&instance, "the instance (IMDSv2)", true),
    ];
    for (give, source, expires) in sources {
        let mut installation = without_keys(&s3);
        give(&mut installation);
        let storage = storage_check(&installation).await;
        assert_eq!(storage["ok"], true, "{source}: {storage}");
        let detail = storage["detail"].as_str().expect("text");
        assert!(detail.contains(source), "{detail}");
        assert_eq!(detail.contains("valid until"), expires, "{detail}");
    }
    assert_eq!(aws.issued(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_pair_of_the_environment_comes_with_its_session_token() {
    let s3 = S3Server::start().await;
    s3.accept_temporary("ASIASESSION", "temporary-secret", "temporary-token", HOUR);
    let mut installation = without_keys(&s3);
    installation.set_raw("AWS_ACCESS_KEY_ID", "ASIASESSION");
    installation.set_raw("AWS_SECRET_ACCESS_KEY", "temporary-secret");
    let storage = storage_check(&installation).await;
    assert_eq!(storage["ok"], false, "without its token: {storage}");
    installation.set_raw("AWS_SESSION_TOKEN", "temporary-token");
    let storage = storage_check(&installation).await;
    assert_eq!(storage["ok"], true, "{storage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_refused_and_halved_credentials_are_named() {
    let s3 = S3Server::start().await;
    let installation = without_keys(&s3);
    let storage = storage_check(&installation).await;
    let detail = storage["detail"].as_str().expect("text");
    assert_eq!(storage["ok"], false);
    assert!(
        detail.contains("AWS_ACCESS_KEY_ID") && detail.contains("no key pair is set"),
        "{detail}"
    );

    let aws = AwsServer::start(&s3, HOUR);
    aws.refuse(true);
    let mut installation = without_keys(&s3);
    installation.set_raw("AWS_CONTAINER_CREDENTIALS_FULL_URI", &aws.container_url());
    let storage = storage_check(&installation).await;
    let detail = storage["detail"].as_str().expect("text");
    assert!(
        storage["ok"] == false && detail.contains("AWS provides no credentials"),
        "{detail}"
    );

    let mut installation = without_keys(&s3);
    installation.set_raw("AWS_ACCESS_KEY_ID", s3.access_key());
    let (ok, _, errors) = run(&installation, &["check"]).await;
    assert!(!ok && errors.contains("AWS_SECRET_ACCESS_KEY"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_replaced_during_uploads_and_urls_do_not_outlive_them() {
    let s3 = S3Server::start().await;
    let aws = AwsServer::start(&s3, Duration::from_secs(8));
    let mut installation = without_keys(&s3);
    on_an_instance(&mut installation, &aws);
    let process = Process::listening(&["up"], &installation.environment()).await;
    let client = reqwest::Client::new();
    let mut stored = 0;
    // At least four keys, each replaced after half of its eight seconds.
    while stored < 1000 || aws.issued() < 4 {
        let files = format!("{}/v1/files", process.url);
        let post = client.post(format!("{files}?filename=a.txt"));
        let response = post.body(format!("number {stored}")).send().await;
        let file = json(response.expect("a response"), 202).await;
        let id = file["id"].as_str().expect("an id");
        let response = client.get(format!("{files}/{id}?wait=20")).send().await;
        let file = json(response.expect("a response"), 200).await;
        assert_eq!(file["status"], "stored", "{file}");
        let url: url::Url = {
            let url = file["url"].as_str().expect("a URL");
            url.parse().expect("a URL")
        };
        let expires = url.query_pairs().find(|(name, _)| name == "X-Amz-Expires");
        let (_, seconds) = expires.expect("a signed URL expires");
        assert!(seconds.parse::<u64>().expect("a number") <= 8, "{url}");
        stored += 1;
        if stored % 100 == 0 {
            let content = client.get(url).send().await.expect("a response");
            assert_eq!(content.status(), 200);
        }
    }
    // While no new ones can be had, the old ones are used to their end; then storage is unavailable, and comes back.
    aws.refuse(true);
    let issued = aws.issued();
    let health = format!("{}/readyz", process.url);
    let is = async |status: &'static str| {
        wait_until(SOON, async || {
            let response = client.get(&health).send().await.expect("a response");
            let report: Value = response.json().await.expect("a report");
            report["checks"]["storage"]["status"] == status
        })
        .await;
    };
    is("degraded").await;
    assert_eq!(aws.issued(), issued);
    aws.refuse(false);
    is("ok").await;
    assert!(aws.issued() > issued);
}
