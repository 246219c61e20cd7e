// Echo in Java's ways: streams that ask available() (FIONREAD) how much is there, and
// channels with a selector.
//
// Speaks to the test by lines: prints "listening MODE PORT", reads "connect MODE HOST PORT
// TARGET" (CONNECT through a proxy), ends when its input ends.

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;

public class Echo {
    interface Work {
        void run() throws IOException;
    }

    public static void main(String[] arguments) throws IOException {
        ServerSocket listener = new ServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
        start(() -> {
            while (true) {
                Socket socket = listener.accept();
                start(() -> streams(socket));
            }
        });
        ServerSocketChannel channels = ServerSocketChannel.open();
        channels.bind(new InetSocketAddress("127.0.0.1", 0));
        start(() -> {
            while (true) {
                SocketChannel channel = channels.accept();
                start(() -> channels(channel));
            }
        });
        System.out.println("listening streams " + listener.getLocalPort());
        System.out.println("listening channels " + channels.socket().getLocalPort());
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            InetSocketAddress proxy = new InetSocketAddress(words[2], Integer.parseInt(words[3]));
            byte[] request = ("CONNECT " + words[4] + " HTTP/1.1\r\nHost: " + words[4] + "\r\n\r\n")
                    .getBytes(StandardCharsets.US_ASCII);
            if (words[1].equals("streams")) {
                start(() -> {
                    Socket socket = new Socket(proxy.getAddress(), proxy.getPort());
                    socket.getOutputStream().write(request);
                    InputStream in = socket.getInputStream();
                    head(() -> in.read());
                    streams(socket);
                });
            } else {
                start(() -> {
                    SocketChannel channel = SocketChannel.open(proxy);
                    channel.write(ByteBuffer.wrap(request));
                    ByteBuffer one = ByteBuffer.allocate(1);
                    head(() -> channel.read(one.clear()) < 0 ? -1 : one.get(0));
                    channels(channel);
                });
            }
        }
        System.exit(0);
    }

    static void start(Work work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (IOException e) {
                System.err.println(e);
            }
        });
        thread.setDaemon(true);
        thread.start();
    }

    interface Bytes {
        int next() throws IOException;
    }

    static void head(Bytes bytes) throws IOException {
        StringBuilder head = new StringBuilder();
        while (head.indexOf("\r\n\r\n") < 0) {
            int next = bytes.next();
            if (next < 0) {
                throw new IOException("no tunnel: " + head);
            }
            head.append((char) next);
        }
        if (!head.toString().split("\r\n")[0].contains(" 200 ")) {
            throw new IOException("no tunnel: " + head);
        }
    }

    /** Waits for one byte, asks how many are behind it, and takes precisely those. */
    static void streams(Socket socket) throws IOException {
        socket.setTcpNoDelay(true);
        InputStream in = socket.getInputStream();
        OutputStream out = socket.getOutputStream();
        for (int first = in.read(); first >= 0; first = in.read()) {
            byte[] rest = in.readNBytes(in.available());
            byte[] all = new byte[rest.length + 1];
            all[0] = (byte) first;
            System.arraycopy(rest, 0, all, 1, rest.length);
            out.write(all);
        }
        socket.shutdownOutput();
        socket.close();
    }

    /** Nonblocking, with a selector; writes what there is room for. */
    static void channels(SocketChannel channel) throws IOException {
        channel.socket().setTcpNoDelay(true);
        channel.configureBlocking(false);
        try (Selector selector = Selector.open(); channel) {
            SelectionKey key = channel.register(selector, SelectionKey.OP_READ);
            ByteBuffer buffer = ByteBuffer.allocateDirect(100_000);
            boolean ended = false;
            while (!ended || buffer.position() > 0) {
                selector.select();
                selector.selectedKeys().clear();
                if (!ended && channel.read(buffer) < 0) {
                    ended = true;
                }
                buffer.flip();
                channel.write(buffer);
                buffer.compact();
                int interest = !ended && buffer.hasRemaining() ? SelectionKey.OP_READ : 0;
                key.interestOps(interest | (buffer.position() > 0 ? SelectionKey.OP_WRITE : 0));
            }
            channel.shutdownOutput();
        }
    }
}
