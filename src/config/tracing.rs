//! `Tracing`: whether spans are made, and where they go.

use super::{
    BackendUrl,
    reader::{At, MapReader},
};

/// Where OTLP over HTTP expects spans, below the collector's address.
const PATH: &str = "/v1/traces";

/// Spans are made and exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// The collector's URL, with its path.
    pub endpoint: String,
    /// The part of requests that are traced, where no client has decided: 0 to 1.
    pub ratio: f64,
    pub service_name: String,
}

pub fn read(top: &mut MapReader) -> Option<Tracing> {
    let at = top.get("Tracing")?;
    let mut map = at.map()?;
    let endpoint = map.require("Endpoint", "write the collector's URL, such as http://127.0.0.1:4318");
    let tracing = Tracing {
        endpoint: endpoint.and_then(|at| url(&at)).unwrap_or_default(),
        ratio: map.read("Ratio", 1.0, At::fraction),
        service_name: map.read("ServiceName", "akubra".to_owned(), At::nonempty),
    };
    map.finish();
    Some(tracing)
}

/// `http://HOST:PORT`, with a path or without.
fn url(at: &At) -> Option<String> {
    let text = at.text()?;
    let start = text.value.find("://").map_or(0, |scheme| scheme + 3);
    let slash = text.value[start..].find('/').map(|slash| start + slash);
    let (address, path) = text.value.split_at(slash.unwrap_or(text.value.len()));
    match BackendUrl::parse(address) {
        Ok(_) if !path.bytes().all(|byte| byte.is_ascii_graphic()) => {
            at.error(format!("the path of {} has characters that do not belong there", text.shown))
        }
        Ok(url) if matches!(path, "" | "/") => Some(format!("{}{PATH}", url.url)),
        Ok(url) => Some(format!("{}{path}", url.url)),
        Err(error) => at.error(format!("{} is {error}", text.shown)),
    }
}
