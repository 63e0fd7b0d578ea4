import java.io.FileReader;
import java.io.FileWriter;
import java.io.IOException;
import java.io.Reader;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyPair;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Security;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.logging.LogManager;
import javax.net.ssl.KeyManagerFactory;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.SubjectPublicKeyInfo;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.est.CACertsResponse;
import org.bouncycastle.est.CSRRequestResponse;
import org.bouncycastle.est.ESTAuth;
import org.bouncycastle.est.ESTService;
import org.bouncycastle.est.EnrollmentResponse;
import org.bouncycastle.est.jcajce.ChannelBindingProvider;
import org.bouncycastle.est.jcajce.JcaHttpAuthBuilder;
import org.bouncycastle.est.jcajce.JcaJceUtils;
import org.bouncycastle.est.jcajce.JsseESTServiceBuilder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.jsse.BCSSLSocket;
import org.bouncycastle.jsse.provider.BouncyCastleJsseProvider;
import org.bouncycastle.openssl.PEMKeyPair;
import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.openssl.jcajce.JcaPEMKeyConverter;
import org.bouncycastle.openssl.jcajce.JcaPEMWriter;
import org.bouncycastle.operator.ContentSigner;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.pkcs.PKCS10CertificationRequestBuilder;
import org.bouncycastle.util.Store;

/**
 * One EST operation with Bouncy Castle's client.
 *
 * <p>Arguments are OPERATION and then NAME=VALUE: server (host:port), ca (PEM; without it the server
 * is not verified), label, cert and key (PEM, for the handshake), user and password, csr (DER) or
 * subject and sign-with (PEM key) for a request that is linked by tls-unique, and out (directory).
 * Exit status: 0 done, 1 refused, 2 wrong usage, 3 pending.
 */
public final class EstDriver {
    private static final char[] NO_SECRET = new char[0];

    private final Map<String, String> options;

    private EstDriver(Map<String, String> options) {
        this.options = options;
    }

    public static void main(String[] arguments) throws Exception {
        LogManager.getLogManager().reset();
        Security.addProvider(new BouncyCastleProvider());
        Security.addProvider(new BouncyCastleJsseProvider());
        Map<String, String> options = new HashMap<>();
        for (int i = 1; i < arguments.length; i++) {
            String[] pair = arguments[i].split("=", 2);
            options.put(pair[0], pair[1]);
        }
        System.exit(new EstDriver(options).run(arguments[0]));
    }

    private int run(String operation) throws Exception {
        try {
            switch (operation) {
                case "cacerts":
                    return cacerts();
                case "csrattrs":
                    return csrattrs();
                case "simpleenroll":
                    return enroll(false, false);
                case "simplereenroll":
                    return enroll(true, false);
                case "serverkeygen":
                    return enroll(false, true);
                default:
                    System.err.println("no such operation: " + operation);
                    return 2;
            }
        } catch (IOException refused) {
            System.out.println("refused: " + refused.getMessage());
            return 1;
        }
    }

    private int cacerts() throws Exception {
        CACertsResponse answer = service().getCACerts();
        System.out.println("trusted: " + answer.isTrusted());
        write(answer.getCertificateStore());
        return 0;
    }

    private int csrattrs() throws Exception {
        CSRRequestResponse answer = service().getCSRAttributes();
        if (answer.hasAttributesResponse()) {
            byte[] der = answer.getAttributesResponse().getEncoded();
            Files.write(out("csrattrs.der"), der);
        }
        return 0;
    }

    private int enroll(boolean renewal, boolean serverKey) throws Exception {
        ESTService service = service();
        EnrollmentResponse answer;
        if (options.containsKey("sign-with")) {
            KeyPair pair = keyPair(options.get("sign-with"));
            PKCS10CertificationRequestBuilder builder =
                    new PKCS10CertificationRequestBuilder(
                            new X500Name(options.get("subject")),
                            SubjectPublicKeyInfo.getInstance(pair.getPublic().getEncoded()));
            ContentSigner signer =
                    new JcaContentSignerBuilder("SHA256withECDSA").build(pair.getPrivate());
            answer = service.simpleEnrollPoP(renewal, builder, signer, authentication());
        } else {
            byte[] der = Files.readAllBytes(Path.of(options.get("csr")));
            PKCS10CertificationRequest request = new PKCS10CertificationRequest(der);
            answer = serverKey
                    ? service.simpleEnrollWithServersideCreation(request, authentication())
                    : service.simpleEnroll(renewal, request, authentication());
        }
        if (!answer.isCompleted()) {
            System.out.println("pending, not before " + answer.getNotBefore());
            return 3;
        }
        write(answer.getStore());
        if (answer.getPrivateKeyInfo() != null) {
            Files.write(out("generated.der"), answer.getPrivateKeyInfo().getEncoded());
        }
        return 0;
    }

    private ESTService service() throws Exception {
        String server = options.get("server");
        JsseESTServiceBuilder builder = options.containsKey("ca")
                ? new JsseESTServiceBuilder(
                        server, JcaJceUtils.getCertPathTrustManager(
                                Collections.singleton(anchor()), null))
                : new JsseESTServiceBuilder(server);
        builder.withProvider("BCJSSE").withTimeout(10_000);
        builder.withChannelBindingProvider(new Binding());
        if (options.containsKey("tls")) {
            builder.withTLSVersion(options.get("tls"));
        }
        if (options.containsKey("label")) {
            builder.withLabel(options.get("label"));
        }
        if (options.containsKey("cert")) {
            builder.withKeyManagers(identity().getKeyManagers());
        }
        return builder.build();
    }

    private ESTAuth authentication() throws Exception {
        if (!options.containsKey("user")) {
            return null;
        }
        char[] password = options.get("password").toCharArray();
        return new JcaHttpAuthBuilder(options.get("user"), password)
                .setProvider("BC")
                .setNonceGenerator(new java.security.SecureRandom())
                .build();
    }

    private TrustAnchor anchor() throws Exception {
        return new TrustAnchor(certificates(options.get("ca")).get(0), null);
    }

    private KeyManagerFactory identity() throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        PrivateKey key = keyPair(options.get("key")).getPrivate();
        X509Certificate[] chain = certificates(options.get("cert")).toArray(X509Certificate[]::new);
        store.setKeyEntry("client", key, NO_SECRET, chain);
        KeyManagerFactory factory = KeyManagerFactory.getInstance("PKIX", "BCJSSE");
        factory.init(store, NO_SECRET);
        return factory;
    }

    private static List<X509Certificate> certificates(String file) throws Exception {
        List<X509Certificate> found = new ArrayList<>();
        try (Reader reader = new FileReader(file); PEMParser parser = new PEMParser(reader)) {
            for (Object next = parser.readObject(); next != null; next = parser.readObject()) {
                found.add(new JcaX509CertificateConverter()
                        .getCertificate((X509CertificateHolder) next));
            }
        }
        return found;
    }

    private static KeyPair keyPair(String file) throws IOException {
        try (Reader reader = new FileReader(file); PEMParser parser = new PEMParser(reader)) {
            Object next = parser.readObject();
            if (next instanceof PEMKeyPair) {
                return new JcaPEMKeyConverter().getKeyPair((PEMKeyPair) next);
            }
            throw new IOException(file + " is no traditional PEM key");
        }
    }

    private void write(Store<X509CertificateHolder> store) throws IOException {
        Collection<X509CertificateHolder> holders = store.getMatches(null);
        int number = 0;
        for (X509CertificateHolder holder : holders) {
            Path file = out("certificate-" + number++ + ".pem");
            try (JcaPEMWriter writer = new JcaPEMWriter(new FileWriter(file.toFile()))) {
                writer.writeObject(holder);
            }
        }
    }

    private Path out(String name) {
        return Path.of(options.get("out"), name);
    }

    /** Tells the service what tls-unique is, which the JDK's own sockets do not. */
    private static final class Binding implements ChannelBindingProvider {
        @Override
        public boolean canAccessChannelBinding(Socket socket) {
            return socket instanceof BCSSLSocket;
        }

        @Override
        public byte[] getChannelBinding(Socket socket, String type) {
            return ((BCSSLSocket) socket).getConnection().getChannelBinding(type);
        }
    }
}
