//! What only a browser shows, in headless Chromium: the operator's page, and answers of the filter. Chromium and its driver
//! are needed, so this is no part of `make test`: run `make chromium`.
mod answers;
mod behind_the_filter;
mod driver;
mod operator_page;
