//! compose.yaml and the Dockerfile. No container engine is needed to see that they are what they are called; that the
//! same processes work together `faults::scaled` shows.

use super::{read, root};
use landfall_core::config::{Backend, Config, ConfigSources};
use serde_json::{Value, json};
use std::{collections::BTreeSet, process::Command};

/// Parsed as Compose does, including anchors and merges, by the YAML library that comes with schemathesis.
fn compose() -> Value {
    const TO_JSON: &str =
        "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let python = std::env::var("LANDFALL_TEST_PYTHON")
        .expect("LANDFALL_TEST_PYTHON names a Python with PyYAML; scripts/test installs it");
    let mut command = Command::new(python);
    let output = command
        .args(["-c", TO_JSON])
        .arg(root().join("compose.yaml"));
    let output = output.output().expect("Python starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "compose.yaml is no YAML: {said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).collect()
}

fn names(map: &Value) -> BTreeSet<&str> {
    let map = map.as_object().expect("a map");
    map.keys().map(String::as_str).collect()
}

/// `${NAME:-default}` with NAME unset.
fn by_default(text: &str) -> String {
    let mut pieces = text.split("${");
    let mut whole = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (variable, rest) = piece.split_once('}').expect("a variable ends");
        let (_, default) = variable.split_once(":-").expect("each has a default");
        whole.push_str(default);
        whole.push_str(rest);
    }
    whole
}

#[test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
fn services_are_complete_and_wait_for_each_other() {
    let compose = compose();
    let services = &compose["services"];
    let all = ["api", "migrate", "postgres", "redis", "s3", "worker"];
    assert_eq!(names(services), BTreeSet::from(all));
    for server in ["postgres", "redis", "s3"] {
        let image = services[server]["image"].as_str().expect("an image");
        assert!(is_pinned(image), "{image} has no version and digest");
        let test = texts(&services[server]["healthcheck"]["test"]);
        assert_eq!(test.first(), Some(&"CMD"), "{server} has a health check");
    }
    for (ours, command) in [
        ("migrate", vec!["migrate", "up"]),
        ("api", vec!["serve"]),
        ("worker", vec!["worker"]),
    ] {
        assert_eq!(services[ours]["build"], ".", "{ours} is built here");
        assert_eq!(texts(&services[ours]["command"]), command);
    }
    let healthy = json!({ "condition": "service_healthy" });
    let done = json!({ "condition": "service_completed_successfully" });
    assert_eq!(
        services["migrate"]["depends_on"],
        json!({ "postgres": healthy })
    );
    let ready = json!({ "migrate": done, "redis": healthy, "s3": healthy });
    for ours in ["api", "worker"] {
        assert_eq!(services[ours]["depends_on"], ready);
    }
    // Migrating ends, and is not begun again once it succeeded.
    let restart = services["migrate"]["restart"].as_str().expect("a policy");
    assert!(restart.starts_with("on-failure"), "{restart}");
}

#[test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
fn workers_can_be_scaled() {
    let compose = compose();
    let worker = &compose["services"]["worker"];
    // Each of these only one container can have.
    for alone in ["container_name", "hostname", "ports"] {
        assert!(worker[alone].is_null(), "{alone}: {worker}");
    }
}

#[test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
fn persistent_data_is_in_volumes_and_staging_is_shared() {
    let compose = compose();
    let declared = names(&compose["volumes"]);
    let (services, mut used) = (&compose["services"], BTreeSet::new());
    for service in names(services) {
        for volume in texts(&services[service]["volumes"]) {
            let (name, _) = volume.split_once(':').expect("a name and a place");
            assert!(declared.contains(name), "{name} is not declared");
            used.insert(name);
        }
    }
    assert_eq!(used, declared);
    for server in ["postgres", "s3"] {
        assert!(!texts(&services[server]["volumes"]).is_empty(), "{server}");
    }
    for ours in ["api", "worker"] {
        let path = &services[ours]["environment"]["LANDFALL__STAGING__PATH"];
        let staging = format!("staging:{}", path.as_str().expect("a path"));
        assert_eq!(texts(&services[ours]["volumes"]), [staging]);
    }
}

#[test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
fn settings_are_known_and_agree_with_the_servers() {
    let compose = compose();
    let services = &compose["services"];
    let environment = |service: &str| -> Vec<(String, String)> {
        let variables = services[service]["environment"].as_object();
        let variables = variables.expect("variables").iter();
        variables
            .map(|(name, value)| (name.clone(), by_default(value.as_str().expect("text"))))
            .collect()
    };
    for ours in ["api", "worker", "migrate"] {
        let config = Config::load(ConfigSources {
            file: None,
            environment: environment(ours),
        });
        let config = config.unwrap_or_else(|error| panic!("{ours}: {error}"));
        assert_eq!(config.storage.backend, Backend::S3);
        let bucket = ("S3_BUCKET".to_owned(), config.storage.s3.bucket_name);
        let key = (
            "AWS_ACCESS_KEY_ID".to_owned(),
            config.storage.s3.access_key_id,
        );
        for shared in [bucket, key] {
            assert!(environment("s3").contains(&shared), "{shared:?}");
        }
        let url = config.storage.s3.endpoint_url.expect("an endpoint");
        let aliases = texts(&services["s3"]["networks"]["default"]["aliases"]);
        assert!(aliases.contains(&url.host_str().expect("a host")), "{url}");
    }
    // Published on this computer only.
    for service in names(services) {
        for port in texts(&services[service]["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{service}: {port}");
        }
    }
}

/// Whether an image is named by its version, for people, and by its digest, for what is pulled.
fn is_pinned(image: &str) -> bool {
    let Some((name, digest)) = image.split_once("@sha256:") else {
        return false;
    };
    let is_hexadecimal = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let tag = name.rsplit_once(':').map(|(_, tag)| tag);
    digest.len() == 64
        && digest.bytes().all(is_hexadecimal)
        && tag.is_some_and(|tag| tag != "latest")
}

#[test]
fn base_images_are_pinned() {
    let dockerfile = read("Dockerfile");
    let froms = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("FROM "));
    let images: Vec<&str> = froms.filter_map(|from| from.split(' ').next()).collect();
    assert_eq!(images.len(), 2);
    for image in images {
        assert!(is_pinned(image), "{image} has no version and digest");
    }
}

#[test]
fn image_runs_unprivileged_and_has_a_health_check() {
    let dockerfile = read("Dockerfile");
    let last = dockerfile.rsplit("\nFROM ").next().expect("a stage");
    let users: Vec<_> = last
        .lines()
        .filter_map(|line| line.strip_prefix("USER "))
        .collect();
    assert_eq!(users, ["landfall"]);
    assert!(last.contains("useradd --system"));
    assert!(last.contains("\nHEALTHCHECK "));
    assert!(last.contains("\nENTRYPOINT [\"landfall\"]"));
}
