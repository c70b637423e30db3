//! A login in AWS Secrets Manager.
