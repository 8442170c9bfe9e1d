use super::{answered, begin, header, patch, send, tus};
use crate::support::TestApp;

const READ: [&str; 14] = [
    "location",
    "tus-resumable",
    "tus-version",
    "tus-extension",
    "tus-max-size",
    "tus-checksum-algorithm",
    "upload-offset",
    "upload-length",
    "upload-defer-length",
    "upload-metadata",
    "upload-expires",
    "upload-concat",
    "landfall-file",
    "upload-limit",
];

#[tokio::test]
async fn preflight_allows_every_method_and_header() {
    let app = TestApp::start().await;
    let request = app
        .request(super::method("OPTIONS"), "/v1/tus")
        .header("Origin", "https://shop.example")
        .header("Access-Control-Request-Method", "POST")
        .header(
            "Access-Control-Request-Headers",
            "tus-resumable, upload-length",
        );
    let response = send(request).await;
    assert_eq!(response.status(), 204);
    assert_eq!(header(&response, "access-control-allow-origin"), Some("*"));
    let methods = header(&response, "access-control-allow-methods").unwrap();
    for name in ["POST", "HEAD", "PATCH", "DELETE", "GET"] {
        assert!(methods.contains(name), "{name}");
    }
    let headers = header(&response, "access-control-allow-headers")
        .unwrap()
        .to_lowercase();
    for name in [
        "authorization",
        "content-type",
        "tus-resumable",
        "upload-length",
        "upload-defer-length",
        "upload-offset",
        "upload-metadata",
        "upload-checksum",
        "upload-concat",
        "x-http-method-override",
        "upload-complete",
    ] {
        assert!(headers.split(", ").any(|one| one == name), "{name}");
    }
}

#[tokio::test]
async fn every_response_exposes_its_headers_to_scripts() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    let requests = [
        tus(&app, "HEAD", &path),
        patch(&app, &path, 3, "x"),
        patch(&app, &path, 0, "hello"),
        tus(&app, "HEAD", "/v1/tus/nonsense"),
    ];
    for request in requests {
        let response = send(request.header("Origin", "https://shop.example")).await;
        let status = response.status().as_u16();
        answered(&response, status);
        assert_eq!(header(&response, "access-control-allow-origin"), Some("*"));
        let exposed = header(&response, "access-control-expose-headers")
            .unwrap()
            .to_lowercase();
        for name in READ {
            assert!(exposed.split(", ").any(|one| one == name), "{name}");
        }
    }
}
