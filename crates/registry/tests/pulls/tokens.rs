//! Registries that send whoever asks to fetch a token first.

use cofferdam_registry::{Credentials, Options, RegistryError};

use crate::{
    fake::{Fake, Reply, plain},
    image::TestImage,
    scene::{Failure, Scene},
};

const TOKEN: &str = "a-token-of-this-test";

/// A registry that wants its token for everything, and gives it to whoever says `credentials` (to all if it is `None`).
fn with_tokens(image: &TestImage, credentials: Option<&'static str>, storage: Option<String>) -> Fake {
    let image = image.clone();
    Fake::new(move |request| {
        let authorization = request.headers.get("authorization").map(String::as_str);
        if request.path.starts_with("/token") {
            return if credentials.is_none_or(|wanted| authorization == Some(wanted)) {
                assert!(request.path.contains("some%2Fimage%3Apull"), "{}", request.path);
                Reply::new(200, format!(r#"{{"token":"{TOKEN}"}}"#))
            } else {
                Reply::new(401, r#"{"details":"incorrect username or password"}"#)
            };
        }
        if authorization != Some(&format!("Bearer {TOKEN}")) {
            let here = &request.headers["host"];
            let challenge = format!(r#"Bearer realm="http://{here}/token",service="test""#);
            return Reply::new(
                401,
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#,
            )
            .header("WWW-Authenticate", &challenge);
        }
        match &storage {
            Some(storage) if request.is_for(&image.large) => {
                Reply::new(307, "").header("Location", &format!("{storage}/{}", image.large))
            }
            _ => image.answer(request),
        }
    })
}

fn options(user: &str, password: &str) -> Options {
    Options {
        credentials: Credentials::of_text(&format!("{user}:{password}")),
        ..plain()
    }
}

#[test]
fn a_token_that_anybody_gets_is_fetched_by_anybody() {
    let image = TestImage::new();
    let fake = with_tokens(&image, None, None);
    Scene::new().pulled(&fake.name(":1"), &plain(), &image);
}

#[test]
fn a_token_is_given_to_who_has_the_password_and_to_nobody_else() {
    let image = TestImage::new();
    // user:secret
    let fake = with_tokens(&image, Some("Basic dXNlcjpzZWNyZXQ="), None);
    Scene::new().pulled(&fake.name(":1"), &options("user", "secret"), &image);
    for options in [plain(), options("user", "guessed")] {
        let failure = Scene::new().refused(&fake.name(":1"), &options, &["docker login", "--creds"]);
        assert!(
            matches!(failure, Failure::Documents(RegistryError::Unauthorized { .. })),
            "{failure:?}"
        );
        assert!(!failure.to_string().contains("guessed"));
    }
}

#[test]
fn a_token_is_not_told_to_whom_the_registry_sends_us() {
    let image = TestImage::new();
    let there = image.clone();
    let storage = Fake::new(move |request| Reply::blob(request, there.large()));
    let fake = with_tokens(&image, None, Some(format!("http://{}", storage.address)));
    Scene::new().pulled(&fake.name(":1"), &plain(), &image);
    let asked = storage.requests_for(&image.large);
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].headers.contains_key("authorization"), "{asked:?}");
}
