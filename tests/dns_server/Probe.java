// Prints each name's addresses as java.net finds them, by libc, and records as Java's own DNS client
// (JNDI's provider) finds them.
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.Arrays;
import java.util.Hashtable;
import java.util.stream.Collectors;
import javax.naming.NamingException;
import javax.naming.directory.Attribute;
import javax.naming.directory.DirContext;
import javax.naming.directory.InitialDirContext;

public class Probe {
    public static void main(String[] names) throws NamingException {
        Hashtable<String, String> settings = new Hashtable<>();
        settings.put("java.naming.factory.initial", "com.sun.jndi.dns.DnsContextFactory");
        settings.put("java.naming.provider.url", "dns://127.0.0.1:53");
        DirContext dns = new InitialDirContext(settings);
        for (String name : names) {
            System.out.println(name + ": " + addresses(name));
            for (String type : new String[] {"A", "TXT", "SRV", "MX"}) {
                System.out.println(name + " " + type + " " + records(dns, name, type));
            }
        }
    }

    private static String addresses(String name) {
        try {
            return Arrays.stream(InetAddress.getAllByName(name))
                .map(InetAddress::getHostAddress).sorted().collect(Collectors.joining(" "));
        } catch (UnknownHostException unknown) {
            return "no";
        }
    }

    private static String records(DirContext dns, String name, String type) {
        try {
            Attribute found = dns.getAttributes(name, new String[] {type}).get(type);
            return found == null ? "nothing" : String.valueOf(found.get()).replace("\"", "");
        } catch (NamingException none) {
            return "no";
        }
    }
}
