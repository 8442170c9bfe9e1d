//! The tus endpoint for signed-in browsers, which are already authenticated.

use crate::{
    api::Tus,
    dashboard::{error::ErrorPage, session::User},
};
use http::{HeaderValue, header};
use poem::{Endpoint, Request, Response, Result};

/// The path where uploads are created; each upload is below it.
pub(super) const PATH: &str = "/upload/tus";

/// The path of the endpoint in the API.
const API_PATH: &str = "/v1/tus/";

#[derive(Clone, Copy, Debug)]
pub(super) struct SessionTus;

impl Endpoint for SessionTus {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let user = request.data::<User>().cloned();
        let user = user.ok_or_else(|| ErrorPage::failed("an upload without a user"))?;
        request.set_data(user.identity);
        match Tus.call(request).await {
            Ok(response) => Ok(here(response)),
            Err(error) if error.status().is_server_error() => Err(error),
            // For the script, which expects a protocol response and not a page.
            Err(error) => Ok(error.into_response()),
        }
    }
}

/// Rewrites `Location`, so that the upload continues with the session.
fn here(mut response: Response) -> Response {
    let location = response.headers().get(header::LOCATION);
    let location = location.and_then(|value| value.to_str().ok());
    let id = location
        .and_then(|path| path.rsplit_once(API_PATH))
        .map(|(_, id)| id.to_owned());
    let value = id.and_then(|id| HeaderValue::from_str(&format!("{PATH}/{id}")).ok());
    if let Some(value) = value {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}
