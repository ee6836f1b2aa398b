import java.net.HttpURLConnection;
import java.net.URL;

/** Prints the body of a URL by Java's HttpURLConnection, which sends the URL as it stands. */
final class Fetch {
    public static void main(String[] arguments) throws Exception {
        var connection = (HttpURLConnection) new URL(arguments[0]).openConnection();
        System.out.write(connection.getInputStream().readAllBytes());
        System.out.flush();
    }
}
