//! `/settings`: every setting and its origin, and no secret.

use super::dashboard_user::{DashboardUser, app};
use landfall_core::tokens::TokenScope;

#[tokio::test]
async fn settings_are_shown_with_their_values_to_administrators() {
    let app = app().await;
    let admin = DashboardUser::new(&app, "ops", &[TokenScope::Admin]).await;
    let page = admin.page("/settings").await;
    for key in [
        "auth.mode",
        "uploads.max_file_size",
        "storage.s3.secret_access_key",
    ] {
        assert!(page.contains(key), "{key}");
    }
    let config = &app.parts.app.config;
    for setting in &config.settings {
        assert!(page.contains(&setting.key), "{}", setting.key);
    }
    let reader = DashboardUser::new(&app, "ann", &[TokenScope::Read]).await;
    assert_eq!(reader.get("/settings").await.status(), 403);
}
