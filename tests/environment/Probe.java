// Fetches each URL by HttpURLConnection, then by HttpClient, and prints the body, a line each.
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class Probe {
    static String byConnection(URI uri) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) uri.toURL().openConnection();
        try (InputStream body = connection.getInputStream()) {
            return new String(body.readAllBytes());
        }
    }

    static String byClient(URI uri) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(uri).build();
        return HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body();
    }

    public static void main(String[] urls) {
        for (String which : new String[] {"connection", "client"}) {
            for (String url : urls) {
                try {
                    URI uri = URI.create(url);
                    System.out.println(which.equals("client") ? byClient(uri) : byConnection(uri));
                } catch (Exception error) {
                    System.out.println("error " + error);
                }
            }
        }
    }
}
