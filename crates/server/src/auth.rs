//! Bearer tokens.

use tonic::{Request, Status};

/// Lets requests with the right token pass, or all if there is none to check.
#[derive(Clone)]
pub(crate) struct Auth(Option<std::sync::Arc<str>>);

impl Auth {
    pub fn new(token: Option<String>) -> Self {
        Self(token.map(Into::into))
    }
}

impl tonic::service::Interceptor for Auth {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(wanted) = &self.0 else {
            return Ok(request);
        };
        let given = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        match given {
            Some(given) if same(given.as_bytes(), wanted.as_bytes()) => Ok(request),
            Some(_) => Err(Status::unauthenticated(
                "the bearer token is not the router's",
            )),
            None => Err(Status::unauthenticated(
                "this router wants a token: send the metadata `authorization: Bearer <token>`",
            )),
        }
    }
}

/// Compares in a time that tells nothing about where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn only_the_same_token_is_the_same() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd"));
        assert!(!same(b"abc", b"ab"));
    }
}
