import type { CallContext, ServerStream, Services } from '../grpc/server.ts';
import { ConsulRefusal } from './refusal.ts';
import type { ConsulState } from './state.ts';

/** Effectively unlimited: the pulse wakes the sleeper earlier. */
const FOREVER_MS = 2 ** 40;

/** The gRPC services of one server, as far as an agentless Connect client needs them. */
export function grpcServices(state: ConsulState, calls: string[]): Services {
  const refusing =
    <Request, Response extends object>(name: string, work: (request: Request, token: string | undefined) => Response) =>
    (request: never, context: CallContext): Response => {
      calls.push(name);
      try {
        return work(request, tokenOf(context));
      } catch (error) {
        throw error instanceof ConsulRefusal ? error.asGrpc() : error;
      }
    };

  return {
    'hashicorp.consul.connectca.ConnectCAService': {
      WatchRoots: {
        async stream(stream: ServerStream<never, object>) {
          calls.push('WatchRoots');
          try {
            await watchRoots(state, stream);
          } catch (error) {
            throw error instanceof ConsulRefusal ? error.asGrpc() : error;
          }
        },
      },
      Sign: {
        unary: refusing('Sign', ({ csr }: { csr: string }, token) => ({ cert_pem: state.sign(csr, token).pem })),
      },
    },
    'hashicorp.consul.acl.ACLService': {
      Login: {
        unary: refusing('Login', (request: { auth_method: string; bearer_token: string }) => {
          const { accessor, secret } = state.acl.login(request.auth_method, request.bearer_token);
          return { token: { accessor_id: accessor, secret_id: secret } };
        }),
      },
      Logout: {
        unary: refusing('Logout', ({ token }: { token: string }) => {
          state.acl.delete(token);
          state.changed.fire();
          return {};
        }),
      },
    },
  };
}

async function watchRoots(state: ConsulState, stream: ServerStream<never, object>): Promise<void> {
  const { signal } = stream.context;
  const token = tokenOf(stream.context);
  const { generation } = state;
  for (let sent = -1; !signal.aborted && state.generation === generation; ) {
    state.requireConnect();
    state.acl.requireToken(token);
    if (sent !== state.rootsIndex) {
      sent = state.rootsIndex;
      stream.write(rootsMessage(state));
    }
    await state.changed.wait(FOREVER_MS, state.clock, signal);
  }
}

function rootsMessage({ ca }: ConsulState): object {
  const roots = ca.roots();
  return {
    active_root_id: roots[0]?.id ?? '',
    trust_domain: ca.trustDomain,
    roots: roots.map((root) => ({
      id: root.id,
      name: root.name,
      serial_number: `${BigInt.asUintN(64, BigInt(`0x${root.certificate.serial}`))}`,
      signing_key_id: root.signingKeyId,
      root_cert: root.certificate.pem,
      intermediate_certs: root.intermediates.map(({ pem }) => pem),
      active: root.active,
    })),
  };
}

function tokenOf({ metadata }: CallContext): string | undefined {
  return metadata['x-consul-token'];
}
