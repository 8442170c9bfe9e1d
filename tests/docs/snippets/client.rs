/// Uploads a file without reading it into memory, and returns its id.
pub async fn upload(
    server: &str,
    path: &str,
    name: &str,
) -> Result<String, Box<dyn std::error::Error>> {
    let response = reqwest::Client::new()
        .post(format!("{server}/v1/files"))
        .query(&[("filename", name)])
        .body(tokio::fs::File::open(path).await?)
        .send()
        .await?;
    let file: serde_json::Value = response.error_for_status()?.json().await?;
    Ok(file["id"].as_str().unwrap_or_default().to_owned())
}
