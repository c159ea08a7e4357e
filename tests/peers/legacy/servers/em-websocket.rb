# An echo server made of Ruby's `em-websocket`: hixie-75, 0, 7, 8 and 13. The README says what it understands and reports.

require 'em-websocket'
require_relative '../reporting'

VERSIONS = { 75 => 'hixie-75', 76 => '0' }

def converse(socket)
  id = nil
  is_hixie = nil
  socket.onopen do |handshake|
    id = handshake.query['id']
    is_hixie = VERSIONS.key?(handshake.protocol_version)
    version = VERSIONS.fetch(handshake.protocol_version, handshake.protocol_version.to_s)
    # It answers a subprotocol in 0 alone, with the one that was offered.
    subprotocol = version == '0' ? handshake.headers_downcased['sec-websocket-protocol'] : nil
    report('opened', id: id, version: version, subprotocol: subprotocol)
    socket.send('welcome') if handshake.query['greet']
  end
  socket.onclose do |close|
    # It takes every end of a hixie connection for an abrupt one, so that this says nothing.
    report('closed', id: id, code: is_hixie ? nil : close[:code], reason: close[:reason])
  end
  socket.onpong { |data| socket.send("pong #{data.force_encoding('UTF-8')}") unless data.empty? }
  socket.onbinary do |data|
    report_message(data, true, id: id)
    socket.send_binary(data)
  end
  socket.onmessage do |text|
    report_message(text, false, id: id)
    text.start_with?('!') ? obey(socket, *text.split(' ')) : socket.send(text)
  end
  socket.onerror { |error| raise error unless error.is_a?(EM::WebSocket::WebSocketError) }
end

def obey(socket, word, *rest)
  case word
  when '!ping' then socket.ping(rest.first)
  when '!send' then socket.send(rest.join(' '))
  when '!close' then rest.empty? ? socket.close : socket.close(rest.first.to_i, rest.drop(1).join(' '))
  # It ends every connection by a FIN.
  when '!abort' then socket.close_connection
  end
end

class Input < EM::Connection
  def unbind
    EM.stop
  end
end

EM.run do
  server = EM::WebSocket.run(host: '127.0.0.1', port: 0) { |socket| converse(socket) }
  port, = Socket.unpack_sockaddr_in(EM.get_sockname(server))
  report('listening', port: port)
  EM.attach($stdin, Input)
end
