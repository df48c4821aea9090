//! How a row of `routes` is described in OpenAPI 3.1.
//!
//! Answers are the types that are serialised. Requests are described as strictly as they are read: what this
//! says is wrong is refused, and what it says is right is never called malformed.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::info::LicenseBuilder;
use utoipa::openapi::link::Link;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AllOfBuilder, AnyOfBuilder, ArrayBuilder, ComponentsBuilder, ObjectBuilder, Type};
use utoipa::openapi::{
    Content, HttpMethod, InfoBuilder, KnownFormat, OpenApiBuilder, Paths, Ref, RefOr, Required, Response, Schema,
    SchemaFormat, Server, Tag,
};
use utoipa::{PartialSchema, ToSchema};

use super::peer::Role;
use super::problem::{self, PROBLEM};
use super::queries::{LONGEST_PAGE, PAGE};
use super::urgent::LONGEST_KEY;
use crate::core::announcement::Level;
use crate::core::words::{Words, words};
use crate::daemon::answers::Page;

const JSON: &str = "application/json";
const LICENSE: &str = env!("CARGO_PKG_LICENSE");
const STREAM: &str = "text/event-stream";

/// Shapes by name.
type Shapes = Vec<(String, RefOr<Schema>)>;

/// Everything that was described.
#[derive(Default)]
pub struct Described {
    paths: Paths,
    shapes: Shapes,
}

/// What a row does, takes and answers.
pub struct Does {
    said: Words,
    parameters: Vec<Parameter>,
    body: Option<(Required, BTreeMap<String, Content>)>,
    answers: BTreeMap<u16, Response>,
    shapes: Shapes,
}

pub fn does(zh: &str, en: &str) -> Does {
    let (parameters, answers, shapes) = (Vec::new(), BTreeMap::new(), Vec::new());
    Does { said: Words::new(zh, en), parameters, body: None, answers, shapes }
}

/// What a status means here.
fn meaning(status: u16) -> &'static str {
    match status {
        200 => "Done",
        202 => "On disk, and on its way or waiting for a further word",
        400 => "Malformed",
        403 => "The role does not allow it",
        404 => "There is no such thing",
        408 => "The body took longer than ten seconds",
        409 => "The state, or an id that exists, forbids it",
        413 => "The body is larger than 1 MiB",
        415 => "The body is of another media type",
        422 => "Understood and not possible; the field is named",
        503 => "The ledger cannot be used now",
        507 => "There is no space to record it",
        _ => unreachable!("a status that nothing here answers"),
    }
}

impl Does {
    /// A type by its name, its shape kept.
    fn named<T: ToSchema>(&mut self) -> RefOr<Schema> {
        T::schemas(&mut self.shapes);
        self.shapes.push((T::name().into_owned(), T::schema()));
        Ref::from_schema_name(T::name()).into()
    }

    fn answer(&mut self, status: u16, kind: &str, content: Content) {
        let answer = self.answers.entry(status).or_insert_with(|| Response::new(meaning(status)));
        answer.content.insert(kind.to_owned(), content.into());
    }

    pub fn asks(mut self, parameter: Parameter) -> Does {
        self.parameters.push(parameter);
        self
    }

    pub fn answers<T: ToSchema>(mut self, status: u16) -> Does {
        let shape = self.named::<T>();
        self.answer(status, JSON, Content::new(Some(shape)));
        self
    }

    /// A page of a list.
    pub fn lists<T: ToSchema>(mut self) -> Does {
        self.named::<T>();
        self.answer(200, JSON, Content::new(Some(Page::<T>::schema())));
        self
    }

    pub fn answers_any<T: Alternatives>(mut self, status: u16) -> Does {
        let any = T::named(&mut self).into_iter().fold(AnyOfBuilder::new(), |any, shape| any.item(shape));
        self.answer(status, JSON, Content::new(Some(any)));
        self
    }

    /// Text, or what is described elsewhere.
    pub fn answers_as(mut self, status: u16, kind: &str, what: &str) -> Does {
        let shape = if kind == JSON { Type::Object } else { Type::String };
        let shape = ObjectBuilder::new().schema_type(shape).description(Some(what));
        self.answer(status, kind, Content::new(Some(shape)));
        self
    }

    /// Server-sent events, each with such data.
    pub fn streams<T: ToSchema>(mut self) -> Does {
        let data = ObjectBuilder::new()
            .schema_type(Type::String)
            .content_media_type(JSON)
            .content_schema(Some(self.named::<T>()));
        let text = |what: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(what));
        let event = ObjectBuilder::new()
            .description(Some("Each of the server-sent events"))
            .property("id", text("The number to go on from"))
            .property("event", text("What kind of change"))
            .property("data", data)
            .required("id")
            .required("event")
            .required("data");
        self.answer(200, STREAM, Content::new(Some(event)));
        self
    }

    pub fn refuses(mut self, statuses: &[u16]) -> Does {
        for status in statuses {
            let shape = self.named::<problem::Said>();
            self.answer(*status, PROBLEM, Content::new(Some(shape)));
        }
        self
    }

    /// The ledger is asked.
    pub fn reads(self) -> Does {
        self.refuses(&[503])
    }

    /// The ledger is written, which another change may forestall.
    pub fn writes(self) -> Does {
        self.refuses(&[409, 503, 507])
    }

    pub fn takes<T: ToSchema>(mut self) -> Does {
        let shape = self.named::<T>();
        self.body = Some((Required::True, BTreeMap::from([(JSON.to_owned(), Content::new(Some(shape)))])));
        self.refuses(&[400, 408, 413, 415])
    }

    /// A body in which nothing is needed may be left out.
    pub fn takes_perhaps<T: ToSchema>(self) -> Does {
        let mut does = self.takes::<T>();
        if let Some((needed, _)) = &mut does.body {
            *needed = Required::False;
        }
        does
    }

    /// A body that is JSON, or text of another media type.
    pub fn takes_one_of<T: ToSchema>(self, kind: &str, what: &str) -> Does {
        let mut does = self.takes::<T>();
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some(what));
        if let Some((_, contents)) = &mut does.body {
            contents.insert(kind.to_owned(), Content::new(Some(text)));
        }
        does
    }

    /// A body to begin with.
    pub fn such_as(mut self, example: Value) -> Does {
        let contents = self.body.as_mut().map(|(_, contents)| contents);
        let json = contents.and_then(|contents| contents.get_mut(JSON)).expect("a body was described before");
        json.example = Some(example);
        self
    }

    /// The id in this answer is what another operation takes.
    pub fn leads_to(mut self, status: u16, operation: &str) -> Does {
        let link = Link::builder().operation_id(operation).parameter("id", "$response.body#/id");
        self.link(status, operation, link.build());
        self
    }

    /// An emergency's id is what all that follows it takes, its hash what is confirmed.
    pub fn leads_to_what_follows(self, status: u16) -> Does {
        let words = ["all_clear", "cancel", "correct", "delete", "retry", "unhold"];
        let ids = words.map(|word| format!("post_announcements_id_{word}"));
        let mut does = ids.iter().fold(self, |does, id| does.leads_to(status, id));
        does = does.leads_to(status, "get_announcements_id");
        let confirm = Link::builder()
            .operation_id("post_announcements_id_confirm")
            .parameter("id", "$response.body#/id")
            .request_body(Some(json!({ "content_hash": "$response.body#/content_hash" })));
        does.link(status, "post_announcements_id_confirm", confirm.build());
        does
    }

    fn link(&mut self, status: u16, name: &str, link: Link) {
        let answer = self.answers.get_mut(&status).expect("what is linked from was described before");
        answer.links.insert(name.to_owned(), link.into());
    }
}

impl Described {
    pub fn add(&mut self, method: HttpMethod, path: &str, role: Role, does: Does) {
        let does = if role == Role::None { does } else { does.refuses(&[403]) };
        let role = role.as_str();
        let said = match role {
            "none" => Words::new("不需要角色", "Needs no role"),
            role => words!("需要角色 {role}", "Needs the role `{role}`"),
        };
        let Words { zh, en } = does.said;
        let mut operation = OperationBuilder::new()
            .operation_id(Some(operation_id(&method, path)))
            .tag(if method == HttpMethod::Get { "reading" } else { "acting" })
            .summary(Some(en))
            .description(Some(format!("{}. {zh}。{}。", said.en, said.zh)))
            .extensions(Some(ExtensionsBuilder::new().add("x-role", role).build()));
        if path.contains("{id}") {
            operation = operation.parameter(path_id());
        }
        for parameter in does.parameters {
            operation = operation.parameter(parameter);
        }
        if let Some((needed, contents)) = does.body {
            let body = RequestBodyBuilder::new().required(Some(needed));
            let body = contents.into_iter().fold(body, |body, (kind, content)| body.content(kind, content));
            operation = operation.request_body(Some(body.build()));
        }
        for (status, answer) in does.answers {
            operation = operation.response(status.to_string(), answer);
        }
        self.shapes.extend(does.shapes);
        self.paths.add_path_operation(path, vec![method], operation);
    }

    pub fn into_json(self) -> String {
        let what = words!(
            "经 Unix 套接字发布政务公告的守护进程。谁在请求由内核说；每个操作的 `x-role` 是所需角色，后者含前者：\
             none、view、edit、duty、admin。出错一律 `application/problem+json`；此处没有的方法答 405，没有的路径答 404。",
            "The daemon's HTTP on a Unix socket. Who asks is what the kernel says of the connecting process; `x-role` is \
             the role an operation needs, each including the one before: none, view, edit, duty, admin. Errors are \
             `application/problem+json`; methods not described answer 405, other paths 404."
        );
        let info = InfoBuilder::new()
            .title("fabu 发布")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(format!("{}\n\n{}", what.en, what.zh)))
            .license(Some(LicenseBuilder::new().name(LICENSE).identifier(Some(LICENSE)).build()));
        let tag = |name, words: Words| {
            let mut tag = Tag::new(name);
            tag.description = Some(format!("{} {}", words.en, words.zh));
            tag
        };
        let mut shapes = BTreeMap::new();
        for (name, shape) in self.shapes {
            let before = shapes.insert(name.clone(), shape.clone());
            assert!(before.is_none_or(|before| before == shape), "two shapes are called {name}");
        }
        OpenApiBuilder::new()
            .info(info)
            .servers(Some([Server::new("http://fabu")]))
            // Said, not forgotten: nothing in a request gives anybody a role.
            .security(Some([]))
            .tags(Some([
                tag("reading", Words::new("读取。", "What reads.")),
                tag("acting", Words::new("改变。", "What changes something.")),
            ]))
            .paths(self.paths)
            .components(Some(ComponentsBuilder::new().schemas_from_iter(shapes).build()))
            .build()
            .to_json()
            .expect("a description has only text keys and finite numbers")
    }
}

/// `POST /v1/holds/{id}` is `post_holds_id`.
fn operation_id(method: &HttpMethod, path: &str) -> String {
    let method = match method {
        HttpMethod::Get => "get",
        HttpMethod::Delete => "delete",
        _ => "post",
    };
    let words = path.split(['/', '-', '.']).map(|word| word.trim_matches(['{', '}']));
    words.filter(|word| !word.is_empty() && *word != "v1").fold(method.to_owned(), |id, word| id + "_" + word)
}

/// Types of which an answer is one.
pub trait Alternatives {
    fn named(does: &mut Does) -> Vec<RefOr<Schema>>;
}

macro_rules! alternatives {
    ($($one:ident)+) => {
        impl<$($one: ToSchema),+> Alternatives for ($($one,)+) {
            fn named(does: &mut Does) -> Vec<RefOr<Schema>> {
                vec![$(does.named::<$one>()),+]
            }
        }
    };
}
alternatives!(A B);
alternatives!(A B C);

/// The fields of an urgent request; `urgent` reads each as it came, to name the one that is wrong.
#[derive(ToSchema)]
#[schema(as = Urgent)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of what `urgent` reads field by field")]
pub struct UrgentFields {
    /// What is said; or `template`.
    text: Option<String>,
    #[schema(max_length = 2000, pattern = "^https?://")]
    link: Option<String>,
    /// Red unless the template has one.
    level: Option<Level>,
    /// Selectors of accounts; a template has its own.
    to: Option<Selectors>,
    except: Option<Selectors>,
    /// A template whose words these are, with `values`.
    template: Option<String>,
    values: Option<BTreeMap<String, String>>,
    /// Pictures below the queue folder.
    #[schema(max_items = 20)]
    images: Option<Vec<Picture>>,
    source: Option<String>,
    /// The announcement in whose place this comes.
    supersedes: Option<String>,
    /// The emergency this is news of.
    update: Option<String>,
    #[schema(pattern = r"^\s*([0-9]+[.]?[0-9]*|[.][0-9]+)(ms|s|m|h|d)\s*$")]
    expires_after: Option<String>,
    /// How long routine is silent.
    #[schema(pattern = r"^\s*([0-9]+[.]?[0-9]*|[.][0-9]+)(ms|s|m|h|d)\s*$")]
    hold: Option<String>,
    /// Its name: letters, digits, `-`, `_` and `.`; given by the daemon otherwise.
    #[schema(min_length = 1, max_length = 128)]
    id: Option<String>,
    /// What would go where, with nothing written.
    dry_run: Option<bool>,
    /// That of a look: where something else would be sent now, nothing is.
    content_hash: Option<String>,
}

#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the shape of what `urgent` reads field by field")]
enum Selectors {
    One(String),
    Several(Vec<String>),
}

#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the shape of what `urgent` reads field by field")]
enum Picture {
    Path(String),
    Described(DescribedPicture),
}

#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of what `urgent` reads field by field")]
struct DescribedPicture {
    file: String,
    alt: Option<String>,
}

/// An urgent request: words and whom they reach, or a template that has both.
pub struct UrgentRequest;

impl PartialSchema for UrgentRequest {
    fn schema() -> RefOr<Schema> {
        let with = |fields: &[&str]| fields.iter().fold(ObjectBuilder::new(), |object, field| object.required(*field));
        let either = AnyOfBuilder::new().item(with(&["text", "to"])).item(with(&["template"]));
        AllOfBuilder::new().item(Ref::from_schema_name(UrgentFields::name())).item(either).into()
    }
}

impl ToSchema for UrgentRequest {
    fn schemas(shapes: &mut Shapes) {
        UrgentFields::schemas(shapes);
        shapes.push((UrgentFields::name().into_owned(), UrgentFields::schema()));
    }
}

fn parameter(name: &str, place: ParameterIn, what: &str, shape: impl Into<RefOr<Schema>>) -> Parameter {
    let needed = if place == ParameterIn::Path { Required::True } else { Required::False };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(needed)
        .description(Some(what))
        .schema(Some(shape))
        .build()
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn number() -> ObjectBuilder {
    text().pattern(Some("^[0-9]{1,18}$"))
}

fn path_id() -> Parameter {
    parameter("id", ParameterIn::Path, "Percent-encoded where needed", text().min_length(Some(1)))
}

/// Parameters of the query.
pub mod query {
    use super::*;

    pub fn text(name: &str) -> Parameter {
        parameter(name, ParameterIn::Query, "Only of this one", super::text())
    }

    pub fn one<T: PartialSchema>(name: &str) -> Parameter {
        parameter(name, ParameterIn::Query, "Only of this one", T::schema())
    }

    pub fn several<T: PartialSchema>(name: &str) -> Parameter {
        parameter(name, ParameterIn::Query, "Only of these; may be repeated", ArrayBuilder::new().items(T::schema()))
    }

    pub fn since() -> Parameter {
        let instant = super::text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
        parameter("since", ParameterIn::Query, "Only from this instant on", instant)
    }

    pub fn limit() -> Parameter {
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(LONGEST_PAGE as f64))
            .default(Some(PAGE.into()));
        parameter("limit", ParameterIn::Query, "Items of a page", limit)
    }

    pub fn cursor() -> Parameter {
        parameter("cursor", ParameterIn::Query, "`next` of the page before", super::text())
    }

    /// A cursor that is a number.
    pub fn number() -> Parameter {
        parameter("cursor", ParameterIn::Query, "`next` of the page before", super::number())
    }

    pub fn dry_run() -> Parameter {
        let flag = ObjectBuilder::new().schema_type(Type::Boolean);
        parameter(
            "dry_run",
            ParameterIn::Query,
            "A look: nothing is written, nothing held; nothing else is asked",
            flag,
        )
    }
}

/// Parameters of the header.
pub mod header {
    use super::*;

    pub fn idempotency_key() -> Parameter {
        let key = text().min_length(Some(1)).max_length(Some(LONGEST_KEY)).pattern(Some("^[ -~]*[!-~][ -~]*$"));
        parameter("Idempotency-Key", ParameterIn::Header, "Asked again with the same key, it does nothing twice", key)
    }

    pub fn last_event_id() -> Parameter {
        let what = "Goes on after this event; from now on without it";
        parameter("Last-Event-ID", ParameterIn::Header, what, number())
    }
}
