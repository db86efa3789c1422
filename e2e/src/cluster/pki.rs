//! The cluster's keys and certificates, and the client configurations that use them.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use serde_json::json;

use super::layout::Layout;
use super::network::{API_SERVER, SERVICE_API};

/// Signs the cluster's certificates.
pub struct Authority<'a> {
    layout: &'a Layout,
    issuer: Issuer<'static, KeyPair>,
}

impl<'a> Authority<'a> {
    /// A new authority: `ca.crt`, `ca.key`, and the key pair of the service accounts' tokens.
    ///
    /// # Errors
    /// When a key cannot be made or written.
    pub fn create(layout: &'a Layout) -> Result<Self> {
        std::fs::create_dir_all(layout.pki(""))?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "cluster");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        std::fs::write(layout.pki("ca.crt"), parameters.self_signed(&key)?.pem())?;
        std::fs::write(layout.pki("ca.key"), key.serialize_pem())?;

        // RSA, as most clusters have it.
        let tokens = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        std::fs::write(layout.pki("sa.key"), tokens.serialize_pem())?;
        std::fs::write(layout.pki("sa.pub"), tokens.public_key_pem())?;
        Ok(Self { layout, issuer: Issuer::new(parameters, key) })
    }

    /// A certificate of client and server use: `FILE.crt`, `FILE.key`.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn issue(&self, file: &str, subject: Subject<'_>) -> Result<()> {
        let mut parameters =
            CertificateParams::new(subject.names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        for address in subject.addresses {
            parameters.subject_alt_names.push(SanType::IpAddress(*address));
        }
        parameters.distinguished_name.push(DnType::CommonName, subject.user);
        if let Some(group) = subject.group {
            parameters.distinguished_name.push(DnType::OrganizationName, group);
        }
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        std::fs::write(self.layout.pki(&format!("{file}.crt")), certificate.pem())?;
        std::fs::write(self.layout.pki(&format!("{file}.key")), key.serialize_pem())?;
        Ok(())
    }

    /// A certificate for a user and the client configuration with it.
    ///
    /// # Errors
    /// When they cannot be made or written.
    pub fn user(&self, file: &str, subject: Subject<'_>) -> Result<()> {
        self.issue(file, subject)?;
        let pki = |file: &str| self.layout.pki(file);
        write_json(
            &self.layout.kubeconfig(file),
            &json!({
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "speechstack", "cluster": {
                    "server": format!("https://{API_SERVER}:6443"), "certificate-authority": pki("ca.crt"),
                }}],
                "users": [{"name": file, "user": {
                    "client-certificate": pki(&format!("{file}.crt")), "client-key": pki(&format!("{file}.key")),
                }}],
                "contexts": [{"name": "speechstack", "context": {"cluster": "speechstack", "user": file}}],
                "current-context": "speechstack",
            }),
        )
    }
}

/// Whom a certificate names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The user.
    pub user: &'a str,
    /// The user's group.
    pub group: Option<&'a str>,
    /// A server's names.
    pub names: &'a [&'a str],
    /// A server's addresses.
    pub addresses: &'a [IpAddr],
}

/// Makes every key, certificate and client configuration of a cluster with these nodes.
///
/// # Errors
/// When one cannot be made or written.
pub fn create(layout: &Layout, nodes: &[(&str, IpAddr)]) -> Result<()> {
    let authority = Authority::create(layout).context("unable to make the authority")?;
    let mut addresses = vec![SERVICE_API, IpAddr::from([127, 0, 0, 1])];
    addresses.extend(nodes.iter().map(|(_, address)| *address));
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    authority.issue(
        "apiserver",
        Subject { user: "kube-apiserver", names: &names, addresses: &addresses, ..Subject::default() },
    )?;
    let masters = Some("system:masters");
    authority.issue(
        "apiserver-kubelet",
        Subject { user: "kube-apiserver", group: masters, ..Subject::default() },
    )?;
    authority.user("admin", Subject { user: "admin", group: masters, ..Subject::default() })?;
    for user in ["kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        authority.user(user, Subject { user: &format!("system:{user}"), ..Subject::default() })?;
    }
    for (name, address) in nodes {
        let subject = Subject {
            user: &format!("system:node:{name}"),
            group: Some("system:nodes"),
            names: &[name],
            addresses: &[*address],
        };
        authority.user(name, subject)?;
    }
    Ok(())
}

/// Writes a configuration; JSON is YAML.
///
/// # Errors
/// When it cannot be written.
pub fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    std::fs::write(path, format!("{value:#}\n"))
        .with_context(|| format!("unable to write {}", path.display()))
}
