//! Answers (GCS bridge protocol §4).

use serde_json::Value;

use crate::case::{Outcome, Stop, ensure, failed};

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The request's id.
    pub id: u64,
    /// The body, an object.
    pub body: Value,
    /// `Result`.
    pub result: i32,
}

impl Reply {
    /// Holds the members that every answer has to their types.
    ///
    /// # Errors
    /// [`Stop::Failed`] names the member.
    pub(crate) fn new(id: u64, body: Value) -> Outcome<Self> {
        let given = &body["Result"];
        let result = given
            .as_i64()
            .and_then(|number| i32::try_from(number).ok())
            .ok_or_else(|| {
                Stop::Failed(format!(
                    "the answer to request {id} has the Result {given}; it is a signed 32-bit number"
                ))
            })?;
        ensure(
            matches!(body["ErrorMessage"], Value::Null | Value::String(_)),
            || format!("the answer to request {id} has an ErrorMessage that is no text"),
        )?;
        for record in body["ErrorRecords"].as_array().into_iter().flatten() {
            let line = &record["Line"];
            let result = record["Result"].as_i64().map(i32::try_from);
            ensure(
                matches!(result, Some(Ok(_)))
                    && line.as_u64().is_some_and(|line| line <= u64::from(u32::MAX)),
                || format!("the answer to request {id} has an error record that is none: {record}"),
            )?;
        }
        Ok(Self { id, body, result })
    }

    /// Asserts success; returns the body.
    ///
    /// # Errors
    /// [`Stop::Failed`] with the answer.
    pub fn ok(self) -> Outcome<Value> {
        if self.result == 0 {
            Ok(self.body)
        } else {
            failed(format!("request {} failed: {}", self.id, self.brief()))
        }
    }

    /// Asserts a failure, with one of these codes unless there are none, and with a message.
    ///
    /// # Errors
    /// [`Stop::Failed`] with the answer.
    pub fn fails(self, codes: &[u32]) -> Outcome {
        ensure(self.result != 0, || {
            format!("request {} succeeded; it must be refused", self.id)
        })?;
        ensure(self.result < 0, || {
            format!(
                "request {} has the Result {}, which says success to a host that looks at the sign",
                self.id, self.result
            )
        })?;
        let code = self.result.cast_unsigned();
        ensure(codes.is_empty() || codes.contains(&code), || {
            let wanted: Vec<String> = codes.iter().map(|code| format!("0x{code:08x}")).collect();
            format!(
                "request {} has the code 0x{code:08x}, not {}: {}",
                self.id,
                wanted.join(" or "),
                self.brief()
            )
        })?;
        ensure(
            self.body["ErrorMessage"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            || format!("request {} failed without an ErrorMessage", self.id),
        )
    }

    /// The answer for people, cut.
    fn brief(&self) -> String {
        let text = match self.body["ErrorMessage"].as_str() {
            Some(message) => format!("0x{:08x}, {message}", self.result.cast_unsigned()),
            None => self.body.to_string(),
        };
        text.chars().take(300).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_is_signed_and_a_failure_has_a_message() {
        assert!(Reply::new(1, json!({"Result": 3_224_829_198_u32})).is_err());
        assert!(Reply::new(1, json!({})).is_err());
        let reply = |body| Reply::new(1, body).unwrap();
        let refused = json!({"Result": -1_070_137_074, "ErrorMessage": "no container"});
        reply(refused.clone()).fails(&[0xC037_010E]).unwrap();
        reply(refused.clone()).fails(&[]).unwrap();
        assert!(reply(refused.clone()).fails(&[0xC037_010F]).is_err());
        assert!(reply(refused).ok().is_err());
        assert!(reply(json!({"Result": -1})).fails(&[]).is_err());
        assert!(
            reply(json!({"Result": 5, "ErrorMessage": "m"}))
                .fails(&[])
                .is_err()
        );
        assert!(reply(json!({"Result": 0})).fails(&[]).is_err());
        reply(json!({"Result": 0})).ok().unwrap();
    }

    #[test]
    fn an_error_record_has_numbers_that_fit() {
        let with = |record| Reply::new(1, json!({"Result": -1, "ErrorRecords": [record]}));
        with(json!({"Result": -1, "Message": "m", "Line": 4_294_967_295_u32})).unwrap();
        assert!(with(json!({"Result": -1, "Line": -1})).is_err());
        assert!(with(json!({"Result": 4_294_967_295_u32, "Line": 1})).is_err());
    }
}
